//! Reports: whole, closed to the outside, and unmoved by strange names and numbers.

use std::fs;

use lapidary_eval::report::chart::Size;
use lapidary_eval::report::{
    Axis, Bar, BarChart, Cell, Chart, Column, ImageGallery, KeyNumber, LineChart, Point, Report, ScatterChart,
    ScatterSeries, Section, Series, Table,
};
use proptest::prelude::*;

use crate::result::run;

const HOSTILE: &str = "<script>alert(1)</script>\" onload='x' &amp; {{ 7*7 }} </style><!--";

fn page_with(section: Section) -> String {
    Report::new("Title", "Finding.").section(section).to_html().unwrap()
}

fn line_chart(series: impl IntoIterator<Item = Series>) -> LineChart {
    series.into_iter().fold(LineChart::new("A chart", Axis::new("x"), Axis::new("y")), LineChart::series)
}

fn svg(chart: impl Into<Chart>) -> String {
    chart.into().to_svg(Size::WIDE).unwrap().expect("something to draw")
}

#[test]
fn hostile_strings_stay_text_everywhere() {
    let mut run = run("a");
    run.name = HOSTILE.into();
    run.machine = HOSTILE.into();
    run.notes.push(HOSTILE.into());
    let axis = || Axis::new(HOSTILE).unit(HOSTILE);
    let mut bars = BarChart::new(HOSTILE, HOSTILE, axis()).bar(Bar::new(HOSTILE, 1.0).tag(HOSTILE)).caption(HOSTILE);
    bars.groups = vec![HOSTILE.into()];
    bars.mark_name = HOSTILE.into();
    let points = || [Point::new(1.0, 2.0, HOSTILE), Point::new(2.0, 2.0, HOSTILE)];
    let scatter = ScatterChart::new(HOSTILE, axis(), axis())
        .series(ScatterSeries::new(HOSTILE, points()))
        .series(ScatterSeries::new(HOSTILE, points()))
        .reference(HOSTILE, 1.0);
    let lines = line_chart([Series::new(HOSTILE, [(0.0, 1.0)]), Series::new(HOSTILE, [(0.0, 1.0), (1.0, 2.0)])]);
    let table = Table::new([Column::text(HOSTILE), Column::number(HOSTILE).group(HOSTILE)])
        .row([HOSTILE, HOSTILE])
        .caption(HOSTILE);
    let section = Section::new(HOSTILE)
        .paragraph(HOSTILE)
        .table(table)
        .chart(bars)
        .chart(scatter)
        .chart(lines)
        .gallery(ImageGallery::new(HOSTILE).image(png(), HOSTILE))
        .details(HOSTILE, serde_json::json!({ HOSTILE: HOSTILE }));
    let key = KeyNumber::new(HOSTILE, HOSTILE, HOSTILE).note(HOSTILE);
    let page = Report::new(HOSTILE, HOSTILE).key_number(key).section(section).run(run).to_html().unwrap();
    assert!(!page.contains("<script") && !page.contains("onload='"), "markup got through");
    assert_eq!(page.matches("</style>").count(), 1);
    assert_eq!(page.matches("<!--").count(), 0);
    assert!(page.contains("&lt;script&gt;") && page.contains("{{ 7*7 }}"));
}

#[test]
fn a_page_loads_nothing() {
    let points = (0..100).map(|x| (f64::from(x), f64::from(x).sqrt()));
    let page = page_with(Section::new("A").chart(line_chart([Series::new("a", points)])));
    assert!(page.contains("default-src 'none'"));
    for reference in ["http:", "https:", "url(", "<link", "@import", "<script", "src=\"/"] {
        assert!(!page.contains(reference), "{reference}");
    }
}

#[test]
fn a_chart_without_values_says_so() {
    let charts = [
        Chart::from(line_chart([])),
        line_chart([Series::new("empty", [])]).into(),
        line_chart([Series::new("none finite", [(0.0, f64::NAN), (f64::INFINITY, 1.0)])]).into(),
        BarChart::new("Bars", "x", Axis::new("y")).into(),
        BarChart::new("Bars", "x", Axis::new("y")).bar(Bar::new("a", f64::NAN)).into(),
        ScatterChart::new("Points", Axis::new("x").log(), Axis::new("y"))
            .series(ScatterSeries::new("a", [Point::new(-1.0, 1.0, "p")]))
            .into(),
    ];
    for chart in charts {
        assert_eq!(chart.to_svg(Size::WIDE).unwrap(), None);
        assert!(page_with(Section::new("A").charts([chart])).contains("Nothing to draw"));
    }
}

#[test]
fn values_that_cannot_be_drawn_are_gaps_and_counted() {
    let points = [(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, f64::INFINITY), (4.0, 2.0), (5.0, 1.0)];
    let chart = line_chart([Series::new("a", points).smoothed(2.0)]);
    // Two stretches, each faint and firm.
    let curves = svg(chart.clone()).lines().filter(|line| line.contains("#0072B2")).count();
    assert_eq!(curves, 4);
    assert!(page_with(Section::new("A").chart(chart)).contains("2 values cannot be drawn"));

    let bars =
        BarChart::new("b", "x", Axis::new("y")).bar(Bar::new("one", 1.0)).bar(Bar::new("two", f64::NAN).tag("t"));
    assert!(svg(bars.clone()).contains("\n–\n"));
    assert!(page_with(Section::new("A").chart(bars)).contains("1 value cannot be drawn"));
}

#[test]
fn a_single_point_is_drawn_as_a_mark() {
    for series in [Series::new("a", [(3.0, 0.5)]), Series::new("a", [(3.0, 0.5)]).smoothed(10.0)] {
        assert!(svg(line_chart([series])).contains("<circle"));
    }
    let scatter = ScatterChart::new("s", Axis::new("x").log(), Axis::new("y").log());
    assert!(svg(scatter.series(ScatterSeries::new("a", [Point::new(1.0, 1.0, "p")]))).contains("<circle"));
    assert!(svg(BarChart::new("b", "x", Axis::new("y")).bar(Bar::new("zero", 0.0))).contains("zero"));
}

#[test]
fn long_names_are_whole_in_the_page_and_cut_in_the_drawing() {
    let name = "layer ".repeat(40);
    let mut bars = BarChart::new("b", "x", Axis::new("y"));
    bars.bars = (0..2).map(|_| Bar::new(name.clone(), 1.0).tag("3")).collect();
    assert!(svg(bars.clone()).contains('…'));
    assert!(page_with(Section::new("A").chart(bars)).contains(&name));
    let lines = line_chart([Series::new(&name, [(0.0, 1.0)]), Series::new(&name, [(1.0, 1.0)])]);
    assert_eq!(page_with(Section::new("A").chart(lines)).matches(&name).count(), 2);
}

#[test]
fn tables_have_spanning_heads_and_dashes() {
    let table = Table::new([
        Column::text("Bits"),
        Column::number("direct").group("Score"),
        Column::number("ours").group("Score"),
    ])
    .row([Cell::from("4"), Cell::Missing, Cell::Number { value: -0.25, decimals: 1, spread: Some(0.1) }]);
    let page = page_with(Section::new("A").table(table));
    for part in ["rowspan=\"2\"", "colspan=\"2\"", "<th scope=\"row\">4</th>", ">–</td>", "±"] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn pictures_are_inlined_and_must_be_png() {
    let page = page_with(Section::new("A").gallery(ImageGallery::new("g").image(png(), "red")));
    assert!(
        page.contains("src=\"data:image/png;base64,iVBORw0KGgo") && page.contains("width=\"3\" height=\"2\""),
        "{page}"
    );
    for bytes in [Vec::new(), b"GIF89a".to_vec(), png()[..20].to_vec()] {
        let section = Section::new("A").gallery(ImageGallery::new("g").image(bytes, "the caption"));
        let error = Report::new("t", "f").section(section).to_html().unwrap_err().to_string();
        assert!(error.contains("the caption"), "{error}");
    }
}

#[test]
fn a_report_is_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let report = Report::new("Title", "Finding.").run(run("a"));
    report.write(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), report.to_html().unwrap());
    let error = report.write(&folder.path().join("no/report.html")).unwrap_err().to_string();
    assert!(error.contains("report.html"), "{error}");
}

fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(3, 2, image::Rgb([255, 0, 0])).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Places of all marks and texts in a drawing, in CSS pixels.
fn places(svg: &str) -> Vec<(f64, f64)> {
    const SCALE: f64 = 8.0;
    let number = |tag: &str, name: &str| -> Option<f64> {
        let value = tag.split_once(&format!(" {name}=\""))?.1.split_once('"')?.0;
        value.parse().ok().map(|value: f64| value / SCALE)
    };
    let mut found = Vec::new();
    for tag in svg.lines() {
        for (x, y) in [("x", "y"), ("cx", "cy"), ("x1", "y1"), ("x2", "y2")] {
            found.extend(number(tag, x).zip(number(tag, y)));
        }
        let points = tag.split_once("points=\"").map_or("", |(_, rest)| rest.split('"').next().unwrap_or(""));
        let pairs = points.split_whitespace().filter_map(|pair| pair.split_once(','));
        found.extend(pairs.map(|(x, y)| (x.parse::<f64>().unwrap() / SCALE, y.parse::<f64>().unwrap() / SCALE)));
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the numbers, every chart is drawn inside its picture or says that there is nothing to draw.
    #[test]
    fn charts_survive_all_numbers(
        values in prop::collection::vec(prop_oneof![prop::num::f64::ANY, -100.0..100.0f64], 0..40),
        log_x: bool, log_y: bool, half_life in prop::option::of(0.0..50.0f64),
    ) {
        let axis = |log| Axis { log, ..Axis::new("a") };
        let pairs = || values.chunks(2).map(|pair| (pair[0], pair[pair.len() - 1]));
        let mut bars = BarChart::new("b", "x", axis(log_y));
        bars.bars = pairs().map(|(a, b)| Bar::new("label", a).error(b).mark(b).tag("2 bit").group(3)).collect();
        let points = pairs().map(|(a, b)| Point::new(a, b, "label").error(a));
        let mut lines = LineChart::new("l", axis(log_x), axis(log_y)).series(Series::new("s", pairs()));
        lines.series[0].half_life = half_life;
        let scatter = ScatterChart::new("s", axis(log_x), axis(log_y))
            .series(ScatterSeries::new("s", points).joined())
            .reference("r", values.first().copied().unwrap_or(0.0));
        for chart in [Chart::from(bars), lines.into(), scatter.into()] {
            for size in [Size::WIDE, Size::NARROW] {
                let Some(svg) = chart.to_svg(size).unwrap() else { continue };
                for (x, y) in places(&svg) {
                    prop_assert!((-1.0..=size.width + 1.0).contains(&x), "{} at x {x}", chart.title());
                    prop_assert!((-1.0..=size.height + 1.0).contains(&y), "{} at y {y}", chart.title());
                }
            }
        }
    }
}
