//! From a [`Report`] to one HTML page: what the template shows, in the shape it shows it.
//!
//! The template escapes every string. Only the style sheet, the charts and their legend's marks, all of them made in
//! this crate, are inserted as markup.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use plotters::style::RGBColor;

use super::chart::{Chart, LegendEntry, LegendMark, Size, palette};
use super::table::{Cell, Column, Table};
use super::{Block, GalleryImage, Report, ReportError, Section, number};
use crate::result::RunResult;

/// Named like a page so that the template engine escapes what it inserts.
const TEMPLATE: &str = "page.html";

pub(super) fn page(report: &Report) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_template(TEMPLATE, include_str!("page.html")).map_err(ReportError::Page)?;
    let keys: Vec<_> = (report.key_numbers.iter())
        .map(|key| context! { value => &key.value, unit => &key.unit, label => &key.label, note => &key.note })
        .collect();
    let sections = report.sections.iter().map(section).collect::<Result<Vec<_>, _>>()?;
    let context = context! {
        title => &report.title,
        finding => &report.finding,
        style => Value::from_safe_string(include_str!("style.css").into()),
        key_numbers => keys,
        sections,
        notes => report.run.as_ref().map(|run| run.notes.clone()).unwrap_or_default(),
        origin => report.run.as_ref().map(origin).unwrap_or_default(),
    };
    environment.get_template(TEMPLATE).and_then(|page| page.render(context)).map_err(ReportError::Page)
}

fn section(section: &Section) -> Result<Value, ReportError> {
    let blocks = section.blocks.iter().map(block).collect::<Result<Vec<_>, _>>()?;
    Ok(context! { title => &section.title, blocks })
}

fn block(block: &Block) -> Result<Value, ReportError> {
    Ok(match block {
        Block::Paragraph(text) => context! { kind => "paragraph", text },
        Block::Table(table) => context! { kind => "table", table => table_view(table) },
        Block::Charts(charts) => {
            let is_alone = charts.len() == 1;
            let charts = charts.iter().map(|chart| chart_view(chart, is_alone)).collect::<Result<Vec<_>, _>>()?;
            context! { kind => "charts", charts }
        }
        Block::Gallery(gallery) => {
            let images = gallery.images.iter().map(image_view).collect::<Result<Vec<_>, _>>()?;
            context! { kind => "gallery", caption => &gallery.caption, images }
        }
        Block::Details(details) => {
            context! { kind => "details", summary => &details.summary, json => format!("{:#}", details.json) }
        }
    })
}

/// Where the numbers came from, for the foot of the page.
fn origin(run: &RunResult) -> Vec<Value> {
    let memory = if run.peak_rss_bytes == 0 { "not measured".into() } else { number::bytes(run.peak_rss_bytes) };
    let facts = [
        ("Run", run.name.clone()),
        ("Machine", run.machine.clone()),
        ("Device", format!("{}, {}, {} threads", run.device, run.isa, run.threads)),
        ("Time", number::duration(run.seconds)),
        ("Peak memory", memory),
        ("Seed", run.seed.to_string()),
        ("Date", run.date.clone()),
        ("Commit", run.commit.clone()),
    ];
    facts.into_iter().map(|(name, value)| context! { name, value }).collect()
}

fn table_view(table: &Table) -> Value {
    let row = |(index, cells): (usize, &Vec<Cell>)| {
        let cell = |(place, column): (usize, &Column)| {
            context! { text => cells.get(place).map_or_else(String::new, Cell::text), numeric => column.numeric }
        };
        let cells: Vec<_> = table.columns.iter().enumerate().map(cell).collect();
        context! { highlight => table.highlight == Some(index), cells }
    };
    let rows: Vec<_> = table.rows.iter().enumerate().map(row).collect();
    context! { caption => &table.caption, head => table_head(&table.columns), rows }
}

/// One row of heads, or two where columns have groups: a column without one reaches over both.
fn table_head(columns: &[Column]) -> Vec<Value> {
    let has_groups = columns.iter().any(|column| !column.group.is_empty());
    let (mut upper, mut lower) = (Vec::new(), Vec::new());
    for run in columns.chunk_by(|a, b| !a.group.is_empty() && a.group == b.group) {
        let group = &run[0].group;
        if !group.is_empty() {
            upper.push(
                context! { text => group, scope => "colgroup", class => "group", columns => run.len(), rows => 1 },
            );
        }
        for column in run {
            let spans_both = has_groups && group.is_empty();
            let class = if column.numeric { "number" } else { "" };
            let rows = if spans_both { 2 } else { 1 };
            let cell = context! { text => &column.name, scope => "col", class, columns => 1, rows };
            if spans_both { upper.push(cell) } else { lower.push(cell) }
        }
    }
    if has_groups { vec![Value::from(upper), Value::from(lower)] } else { vec![Value::from(lower)] }
}

fn chart_view(chart: &Chart, is_alone: bool) -> Result<Value, ReportError> {
    let safe = |svg: Option<String>| svg.map_or(Value::from(()), Value::from_safe_string);
    let legend: Vec<_> = (chart.legend().iter())
        .map(|entry| context! { name => &entry.name, swatch => Value::from_safe_string(swatch(entry)) })
        .collect();
    let (x_name, y_name) = chart.axis_names();
    let wide = if is_alone { chart.to_svg(Size::WIDE)? } else { None };
    Ok(context! {
        title => chart.title(),
        caption => chart.caption(),
        notes => chart.notes(),
        legend, x_name, y_name,
        wide => safe(wide),
        narrow => safe(chart.to_svg(Size::NARROW)?),
        table => chart.table().as_ref().map_or(Value::from(()), table_view),
    })
}

/// A legend's mark, in the same colours as the chart so that the style sheet finds them.
fn swatch(entry: &LegendEntry) -> String {
    let RGBColor(r, g, b) = palette(entry.colour);
    let (colour, ink, opacity) = (format!("#{r:02X}{g:02X}{b:02X}"), "#1B1F24", entry.opacity);
    let shape = match entry.mark {
        LegendMark::Line => format!(r#"<line x1="1" y1="6" x2="19" y2="6" stroke="{colour}" stroke-width="2.5"/>"#),
        LegendMark::Box => {
            format!(r#"<rect x="4" y="0" width="12" height="12" fill="{colour}" opacity="{opacity}"/>"#)
        }
        LegendMark::Whisker => {
            format!(r#"<path d="M10 0v12M6 .6h8M6 11.4h8" fill="none" stroke="{ink}" stroke-width="1.25"/>"#)
        }
        LegendMark::Point(marker) => match marker.corners() {
            [] => format!(r#"<circle cx="10" cy="6" r="5" fill="{colour}"/>"#),
            corners => {
                let point = |(x, y): &(f64, f64)| format!("{},{}", 10.0 + 4.6 * x, 6.0 + 4.6 * y);
                let points = corners.iter().map(point).collect::<Vec<_>>().join(" ");
                format!(r#"<polygon points="{points}" fill="{colour}"/>"#)
            }
        },
    };
    format!(r#"<svg viewBox="0 0 20 12" aria-hidden="true">{shape}</svg>"#)
}

fn image_view(image: &GalleryImage) -> Result<Value, ReportError> {
    /// Pictures up to this width are enlarged without smoothing, so that each of their pixels can be seen.
    const SMALL: u32 = 96;
    let (width, height) = png_size(&image.png).ok_or_else(|| ReportError::NotPng { caption: image.caption.clone() })?;
    // Base64 needs no escaping; the slashes in it would be.
    let source = Value::from_safe_string(format!("data:image/png;base64,{}", BASE64.encode(&image.png)));
    Ok(context! { caption => &image.caption, width, height, small => width <= SMALL, source })
}

/// Width and height from a PNG file's header (its signature, then the IHDR chunk); `None` for anything else.
fn png_size(png: &[u8]) -> Option<(u32, u32)> {
    let header = png.strip_prefix(b"\x89PNG\r\n\x1a\n")?.get(4..16)?;
    let (width, height) = header.strip_prefix(b"IHDR")?.split_first_chunk::<4>()?;
    let size = (u32::from_be_bytes(*width), u32::from_be_bytes(*height.first_chunk::<4>()?));
    (size.0 > 0 && size.1 > 0).then_some(size)
}
