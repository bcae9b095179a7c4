use super::*;

const SMALL: &str = r#"name = "small"
seeds = [1, 2]

[model]
checkpoint = "minilm"
labels = ["negative", "positive"]

[data]
train = "train.tsv"
dev = "dev.tsv"
text = "sentence"
label = "label"

[finetune]
epochs = 1

[[quantize.variant]]
name = "w4"
bits = 4

[[quantize.variant]]
name = "mp23"
bits = "mixed:2/3"
high_layers = 3
steps = 10
"#;

fn parse(text: &str, set: &[&str]) -> Result<Recipe, String> {
    let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
    Recipe::parse("small.toml", text, &set).map_err(|error| error.to_string())
}

fn error(text: &str, set: &[&str]) -> String {
    parse(text, set).expect_err("the recipe is wrong")
}

#[test]
fn values_and_defaults() {
    let recipe = parse(SMALL, &[]).expect("the recipe is right");
    assert_eq!(recipe.seeds, [1, 2]);
    assert_eq!((recipe.data.kept_out(), recipe.data.lengths().max_length), (2000, 128));
    assert_eq!(recipe.finetune, Finetune { epochs: 1, ..Finetune::default() });
    assert_eq!(recipe.curvature, Curvature::default());
    let [w4, mp23] = &recipe.quantize.variants[..] else { panic!("two variants") };
    assert_eq!((w4.bits, w4.steps), (Bits::Uniform(4), 1000));
    assert_eq!((mp23.bits, mp23.high_layers, mp23.steps), (Bits::Mixed { low: 2, high: 3 }, Some(3), 10));
}

#[test]
fn a_recipe_survives_being_written_and_read() {
    let recipe = parse(SMALL, &[]).expect("the recipe is right");
    let written = toml::to_string(&recipe).expect("TOML");
    assert_eq!(parse(&written, &[]).expect("its own text"), recipe);
}

#[test]
fn faults_are_told_with_place_and_key() {
    let change = |from: &str, to: &str| {
        assert!(SMALL.contains(from));
        error(&SMALL.replacen(from, to, 1), &[])
    };
    assert_eq!(
        change("epochs = 1", "epochs = \"two\""),
        "small.toml:15:10: finetune.epochs: invalid type: string \"two\", expected usize"
    );
    assert!(change("epochs = 1", "epoch = 1").starts_with("small.toml:15:1: finetune.epoch: unknown field `epoch`"));
    assert_eq!(change("epochs = 1", "epochs = 0"), "small.toml:15:10: finetune.epochs: should be 1 to 100000, is 0");
    assert_eq!(change("seeds = [1, 2]", "seeds = [1, 1]"), "small.toml:2:9: seeds: has `1` twice");
    assert!(change("seeds = [1, 2]", "seeds = [1, -2]").starts_with("small.toml:2:13: seeds.1: invalid value"));
    assert!(change("seeds = [1, 2]", "seeds = []").ends_with("seeds: should have at least one seed"));
    assert!(change("seeds = [1, 2]", "seeds = [1, 2").starts_with("small.toml:"));
    assert!(change("name = \"small\"", "name = \"../up\"").starts_with("small.toml:1:8: name: should be 1 to 100"));
    assert!(change("bits = 4", "bits = 9").starts_with("small.toml:19:8: quantize.variant.0.bits: invalid value"));
    assert!(change("mixed:2/3", "mixed:3/2").starts_with("small.toml:23:8: quantize.variant.1.bits: invalid value"));
    assert!(change("name = \"mp23\"", "name = \"w4\"").ends_with("quantize.variant.1.name: `w4` names two variants"));
    assert!(change("high_layers = 3\n", "").contains("quantize.variant.1.high_layers: is missing"));
    assert!(
        change("bits = 4", "bits = 4\nhigh_layers = 1").contains("small.toml:20:15: quantize.variant.0.high_layers")
    );
    assert!(change("checkpoint = \"minilm\"\n", "").contains("missing field `checkpoint`"));
    assert!(change("[finetune]", "[fine_tune]").contains("unknown field `fine_tune`"));
    assert!(
        change("[finetune]", "[finetune]\ndropout = nan")
            .ends_with("finetune.dropout: should be a share, 0 to 1, is NaN")
    );
    assert!(change("[finetune]", "[finetune]\naccumulate = 5").contains("should divide the batch size of 32"));
    for text in ["", "\u{feff}", "a", "name = 3", "[model", "= 1", "model = 1", "seeds = 99999999999999999999"] {
        let error = error(text, &[]);
        assert!(error.starts_with("small.toml:") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn set_changes_values() {
    let set = [
        "finetune.epochs=2",
        "seeds = [7]",
        "quantize.variant.w4.steps=5",
        "quantize.variant.1.bits=mixed:2/4",
        "model.checkpoint=/models/other",
        "curvature.tolerance=1e-3",
        "finetune.epochs=4",
        "quantize.groups=64",
    ];
    let recipe = parse(SMALL, &set).expect("the recipe is right");
    assert_eq!(recipe.finetune.epochs, 4);
    assert_eq!(recipe.seeds, [7]);
    assert_eq!(recipe.quantize.variants[0].steps, 5);
    assert_eq!(recipe.quantize.variants[1].bits, Bits::Mixed { low: 2, high: 4 });
    assert_eq!(recipe.model.checkpoint, "/models/other");
    assert_eq!(recipe.curvature.tolerance, 1e-3);
    assert_eq!(recipe.quantize.groups, 64);
}

#[test]
fn faults_of_set_name_it() {
    for (set, expected) in [
        ("finetune.epoch=1", "--set finetune.epoch=1: finetune.epoch: unknown field `epoch`"),
        ("tune.epochs=1", "--set tune.epochs=1: tune.epochs: unknown field `tune`"),
        ("finetune.epochs=x", "--set finetune.epochs=x: finetune.epochs: invalid type: string \"x\""),
        ("finetune.epochs=0", "--set finetune.epochs=0: finetune.epochs: should be 1 to 100000, is 0"),
        ("finetune.epochs", "--set finetune.epochs: should be key=value"),
        ("finetune..x=1", "--set finetune..x=1: has an empty key"),
        ("name.x=1", "--set name.x=1: `name` is a value and has no keys"),
        ("quantize.variant.w5.steps=1", "--set quantize.variant.w5.steps=1: `variant` has 2 elements and none called"),
        (
            "quantize.variant.steps=1",
            "--set quantize.variant.steps=1: `variant` is a list: name an element, as in variant.0.steps",
        ),
        ("seeds=[1,1]", "--set seeds=[1,1]: seeds: has `1` twice"),
        ("name=a\nb=2", "--set name=a\nb=2: name: should be 1 to 100 letters"),
    ] {
        let error = error(SMALL, &["seeds=[3]", set]);
        assert!(error.starts_with(expected), "{error}\nshould begin with\n{expected}");
    }
}

#[test]
fn the_committed_recipes_can_be_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let read = match kind(&path) {
            RecipeKind::Classes => Recipe::read(&path, &[]).map(drop),
            RecipeKind::Text => TextRecipe::read(&path, &[]).map(drop),
            RecipeKind::Pictures => PictureRecipe::read(&path, &[]).map(drop),
        };
        read.unwrap_or_else(|error| panic!("{error}"));
        count += 1;
    }
    assert!(count >= 6, "{count} recipes");
}
