//! A report with invented numbers, to look at while its style is worked on:
//! `cargo run --release --workspace --example report -- report.html`

use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use lapidary_eval::report::{
    Axis, Bar, BarChart, Cell, Chart, ImageGallery, KeyNumber, LineChart, Point, Report, ScatterChart, ScatterSeries,
    Section, Series, qbert,
};
use lapidary_eval::result::{Metrics, ResultError, RunResult, RunSettings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("give the path of the page to write")?;
    let mut run =
        RunResult::new("qbert-sst2", RunSettings { isa: "avx2".into(), device: "cpu".into(), threads: 2, seed: 1 });
    run.metrics = metrics()?;
    run.notes = vec![
        "3 bits: 1.4 points below f32, 0.2 more than the 4-bit model loses.".into(),
        "These numbers are invented: this page only shows what a report looks like.".into(),
    ];
    run.finish(4271.0);

    let mut table = qbert::table(&run).caption(
        "SST-2 dev, 872 sentences; mean ± standard deviation of three seeds. One standard error is about a point.",
    );
    table.highlight = table.rows.iter().position(|row| row.first() == Some(&Cell::from("2/3 mixed")));
    Report::new(
        "Q-BERT on SST-2",
        "Cut to two and three bits where its loss is flat, MiniLM keeps all but 1.9 points of its accuracy in a \
         seventh of its size.",
    )
    .key_number(KeyNumber::new("87.7", "%", "accuracy, 2/3 bits mixed").note("89.6 % in f32"))
    .key_number(KeyNumber::new("16.4", "MB", "2/3 bits mixed").note("90.9 MB in f32"))
    .key_number(KeyNumber::new("89.2", "%", "accuracy, 4 bits").note("71.6 % by direct rounding"))
    .key_number(KeyNumber::new("0.27", "s", "a training step").note("batch of 32, two threads"))
    .section(
        Section::new("Accuracy and size")
            .paragraph(
                "Weights of every encoder matrix are cut in 128 groups, each with its own range; embeddings and \
                 activations have 8 bits, the classifier stays in f32.",
            )
            .table(table)
            .chart(accuracy_over_size()),
    )
    .section(
        Section::new("Sensitivity of the layers")
            .paragraph(
                "The top eigenvalue of each layer's Hessian, by power iteration on ten shares of the training data. \
                 Layers with a large Ω = |mean λ| + standard deviation get three bits, the others two.",
            )
            .chart(sensitivity()),
    )
    .section(Section::new("Training").charts([Chart::from(loss()), accuracy().into(), rate().into(), norm().into()]))
    .section(
        Section::new("What it was shown")
            .gallery((0..6).fold(ImageGallery::new("Six pictures of the generated world."), |gallery, index| {
                gallery.image(picture(index), format!("a shape, number {}", index + 1))
            }))
            .details("All results as JSON", serde_json::to_value(&run)?),
    )
    .run(run)
    .write(Path::new(&path))?;
    Ok(())
}

fn metrics() -> Result<Metrics, ResultError> {
    let mut metrics = Metrics::default();
    let mut score = |name: &str, seeds: [f64; 3]| -> Result<(), ResultError> {
        metrics.insert(name, (seeds.iter().sum::<f64>() / 3.0 * 100.0).round() / 100.0)?;
        (0..3).try_for_each(|index| metrics.insert(format!("{name}.seed{}", index + 1), seeds[index]))
    };
    score("sst2.dev.accuracy.f32", [89.4, 89.8, 89.6])?;
    for (variant, direct, qat) in [
        ("w8", [89.3, 89.8, 89.5], [89.4, 89.7, 89.6]),
        ("w4", [71.6, 70.2, 73.1], [89.1, 89.4, 89.2]),
        ("w3", [51.5, 50.9, 53.0], [88.0, 88.4, 88.3]),
        ("mp23", [51.1, 50.9, 50.9], [87.5, 88.0, 87.6]),
    ] {
        score(&format!("sst2.dev.accuracy.{variant}.direct"), direct)?;
        score(&format!("sst2.dev.accuracy.{variant}.qat"), qat)?;
    }
    for (variant, whole, encoder) in
        [("f32", 90.9, 42.6), ("w8", 22.9, 10.8), ("w4", 17.7, 5.6), ("w3", 16.9, 4.3), ("mp23", 16.4, 3.6)]
    {
        metrics.insert(format!("sst2.size_mb.{variant}"), whole)?;
        metrics.insert(format!("sst2.size_mb_without_embeddings.{variant}"), encoder)?;
    }
    Ok(metrics)
}

fn accuracy_over_size() -> ScatterChart {
    let direct = [(10.8, 89.5, "8"), (5.6, 71.6, "4"), (4.3, 51.8, "3"), (3.6, 51.0, "2/3")];
    let method = [(10.8, 89.6, "8"), (5.6, 89.2, "4"), (4.3, 88.2, "3"), (3.6, 87.7, "2/3")];
    let points =
        |values: [(f64, f64, &'static str); 4]| values.map(|(size, score, bits)| Point::new(size, score, bits));
    ScatterChart::new("Accuracy over size", Axis::new("Encoder size").unit("MB").log(), Axis::new("Accuracy").unit("%"))
        .series(ScatterSeries::new("Q-BERT", points(method)).joined())
        .series(ScatterSeries::new("rounded directly", points(direct)).joined())
        .reference("f32, 42.6 MB: 89.6 %", 89.6)
        .caption("Bits beside each point.")
}

fn sensitivity() -> BarChart {
    let layers = [(14.2, 5.1), (21.7, 8.3), (38.4, 16.9), (44.0, 12.2), (17.3, 4.0), (9.1, 3.3)];
    let axis = Axis::new("Top Hessian eigenvalue |λ|");
    let mut chart = BarChart::new("Curvature by layer", "Encoder layer", axis)
        .caption("Mean and standard deviation over ten shares of the training data.");
    chart.groups = vec!["3 bits".into(), "2 bits".into()];
    chart.value_name = "|mean λ|".into();
    chart.error_name = "std λ".into();
    chart.mark_name = "Ω = |mean λ| + std λ".into();
    chart.tag_name = "bits".into();
    layers.into_iter().enumerate().fold(chart, |chart, (index, (mean, std))| {
        let bits = if mean + std > 25.0 { 3 } else { 2 };
        let bar = Bar::new((index + 1).to_string(), mean).error(std).mark(mean + std);
        chart.bar(bar.tag(bits.to_string()).group(3 - bits))
    })
}

/// Noise in [-1, 1) from a step: a multiplicative hash is random enough to look at.
fn noise(step: u32) -> f64 {
    f64::from(step.wrapping_mul(2_654_435_769).rotate_left(13).wrapping_mul(2_246_822_519) >> 8) / f64::from(1 << 23)
        - 1.0
}

fn loss() -> LineChart {
    let curve = |shift: u32, floor: f64, scale: f64| {
        (0..2040).map(move |step| {
            let smooth = floor + scale * (-f64::from(step) / 260.0).exp();
            (f64::from(step), (smooth * (1.0 + 0.45 * noise(step + shift))).max(0.01))
        })
    };
    LineChart::new("Training loss", Axis::new("Step"), Axis::new("Cross-entropy").unit("nats").from_zero())
        .series(Series::new("f32", curve(0, 0.17, 0.5)).smoothed(40.0))
        .series(Series::new("2/3 bits mixed", curve(77_777, 0.24, 0.9)).smoothed(40.0))
}

fn accuracy() -> LineChart {
    let curve = |top: f64, drop: f64| {
        (1..=10u32).map(move |index| {
            let step = f64::from(index) * 204.0;
            (step, top - drop * (-step / 400.0).exp() + 0.2 * noise(index))
        })
    };
    LineChart::new("Accuracy on the validation part", Axis::new("Step"), Axis::new("Accuracy").unit("%"))
        .series(Series::new("f32", curve(91.0, 9.0)))
        .series(Series::new("2/3 bits mixed", curve(89.3, 21.0)))
}

fn rate() -> LineChart {
    let rates = (0..=2040).map(f64::from).map(|step| (step, 5e-5 * (step / 204.0).min((2040.0 - step) / 1836.0)));
    LineChart::new("Learning rate", Axis::new("Step"), Axis::new("Learning rate")).series(Series::new("rate", rates))
}

fn norm() -> LineChart {
    let norms = (1..2040)
        .map(|step| (f64::from(step), 3.0 * (1.0 + f64::from(step) / 30.0).powf(-0.5) * (1.0 + 0.7 * noise(step))));
    LineChart::new("Norm of the gradient", Axis::new("Step").log(), Axis::new("Norm").log())
        .series(Series::new("norm", norms).smoothed(20.0))
}

fn picture(index: u32) -> Vec<u8> {
    const COLOURS: [[u8; 3]; 3] = [[0, 114, 178], [213, 94, 0], [0, 158, 115]];
    let (radius, colour) = (6 + index as i32, COLOURS[index as usize % 3]);
    let picture = RgbImage::from_fn(32, 32, |x, y| {
        let (x, y) = (x as i32 - 16, y as i32 - 16);
        let is_inside = if index < 3 { x * x + y * y < radius * radius } else { x.abs().max(y.abs()) < radius };
        Rgb(if is_inside { colour } else { [236, 238, 241] })
    });
    let mut png = Vec::new();
    picture.write_to(&mut std::io::Cursor::new(&mut png), ImageFormat::Png).map_or_else(|_| Vec::new(), |()| png)
}
