use std::time::{Duration, SystemTime};

use super::*;

fn run() -> (tempfile::TempDir, RunFolder) {
    let folder = tempfile::tempdir().expect("a folder");
    let run = RunFolder::open(&folder.path().join("run")).expect("nobody else has it");
    (folder, run)
}

fn stage(run: &RunFolder, settings: Value) -> Stage {
    run.stage("finetune", &Inputs::new(&settings).expect("JSON")).expect("no files to read")
}

#[test]
fn a_finished_stage_is_done_until_its_inputs_change() {
    let (_folder, run) = run();
    let first = stage(&run, json!({"rate": 1e-5, "epochs": 1}));
    assert_eq!(first.done::<Value>().expect("readable"), None);
    assert_eq!(first.begin().expect("a fresh folder"), Start::Fresh);
    fs::write(first.path().join("model"), "weights").expect("written");
    first.finish(&json!({"accuracy": 90.5})).expect("written");

    let again = stage(&run, json!({"epochs": 1, "rate": 1e-5}));
    assert_eq!(again.key, first.key, "the order of keys does not matter");
    assert_eq!(again.done::<Value>().expect("readable"), Some(json!({"accuracy": 90.5})));
    assert_eq!(again.done::<Vec<u8>>().expect("readable"), None, "outputs of another form");

    let changed = stage(&run, json!({"epochs": 2, "rate": 1e-5}));
    assert_eq!(changed.done::<Value>().expect("readable"), None);
    assert!(first.path().join("model").exists(), "asking moves nothing");
    assert_eq!(changed.begin().expect("the old files move"), Start::Fresh);
    assert!(!changed.path().join("model").exists());
    assert!(run.path().join("finetune.previous/model").exists());
    assert_eq!(first.begin().expect("and once more"), Start::Fresh);
    assert!(!run.path().join("finetune.previous/model").exists());
}

#[test]
fn a_stopped_stage_goes_on() {
    let (_folder, run) = run();
    let stage = stage(&run, json!(1));
    stage.begin().expect("a fresh folder");
    fs::create_dir(stage.path().join("steps")).expect("made");
    fs::write(stage.path().join("steps/10"), "state").expect("written");
    assert_eq!(stage.done::<Value>().expect("readable"), None);
    assert_eq!(stage.begin().expect("the same inputs"), Start::Resumed);
    assert!(stage.path().join("steps/10").exists());
    stage.finish(&()).expect("written");
    assert_eq!(stage.done::<()>().expect("readable"), Some(()));

    fs::write(stage.path().join("steps/10"), "").expect("cut off");
    assert_eq!(stage.done::<()>().expect("readable"), None);
    assert_eq!(stage.begin().expect("damaged files are no start"), Start::Fresh);
}

#[test]
fn keys_follow_files_and_stages_before() {
    let (folder, run) = run();
    let file = folder.path().join("train.tsv");
    fs::write(&file, "a").expect("written");
    let key = |after: Option<&Stage>| {
        let mut inputs = Inputs::new(&()).expect("JSON").file("train", &file).file("model", folder.path());
        if let Some(stage) = after {
            inputs = inputs.after(stage);
        }
        run.stage("evaluate", &inputs).expect("files are readable").key
    };
    let before = key(None);
    assert_eq!(key(None), before);
    assert_ne!(key(Some(&stage(&run, json!(1)))), before);
    assert_ne!(key(Some(&stage(&run, json!(1)))), key(Some(&stage(&run, json!(2)))));
    fs::write(&file, "b").expect("written");
    let later = SystemTime::now() + Duration::from_secs(10);
    File::options().write(true).open(&file).and_then(|file| file.set_modified(later)).expect("a later time");
    assert_ne!(key(None), before);

    let inputs = Inputs::new(&()).expect("JSON").file("train", &folder.path().join("none"));
    let error = run.stage("evaluate", &inputs).expect_err("no such file").to_string();
    assert!(error.starts_with("cannot read ") && error.ends_with("none"), "{error}");
}

#[test]
fn a_run_has_its_folder_for_itself() {
    let (_folder, run) = run();
    let error = RunFolder::open(run.path()).expect_err("held").to_string();
    assert!(error.contains(&format!("in use by another run (process {})", std::process::id())), "{error}");
    let path = run.path().to_owned();
    drop(run);
    RunFolder::open(&path).expect("free again");
}

#[test]
fn foreign_files_are_left_alone() {
    let (_folder, run) = run();
    let stage = stage(&run, json!(1));
    fs::create_dir(stage.path()).expect("made");
    fs::write(stage.path().join("thesis.tex"), "years of work").expect("written");
    assert!(matches!(stage.begin(), Err(StageError::Foreign { .. })));
    assert!(stage.path().join("thesis.tex").exists());

    fs::write(stage.path().join(MARK), "{").expect("written");
    assert_eq!(stage.done::<()>().expect("readable"), None);
    assert_eq!(stage.begin().expect("moved away"), Start::Fresh);
    assert!(run.path().join("finetune.previous/thesis.tex").exists());
}
