//! What the ranks of a job do in common beside training: files that one of them writes and all read.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use lapidary_collective::Ranks;
use serde::de::DeserializeOwned;

use crate::exit::Usage;
use crate::stage::{RunFolder, Stage, StageError};

/// A run's folder: the first rank holds it, for all of them.
///
/// # Errors
/// Another run holds it; a folder that is not the same one for all ranks.
pub fn folder(ranks: &Ranks, path: &Path) -> anyhow::Result<RunFolder> {
    if ranks.is_alone() {
        return Ok(RunFolder::open(path)?);
    }
    // The first rank leaves its process's number there; one that reads another has another folder.
    let folder = if ranks.is_first() { Some(RunFolder::open(path)?) } else { None };
    let holder = ranks.broadcast(0, std::process::id().to_string().into_bytes())?;
    let seen = fs::read_to_string(path.join(".lock")).unwrap_or_default();
    ensure!(
        seen.trim().as_bytes() == holder,
        "rank {} does not see {} as rank 0 has it: --out has to be a folder on storage that all ranks share",
        ranks.rank(),
        path.display()
    );
    // None goes on, and no lock goes, before all have looked.
    ranks.wait_for_all()?;
    Ok(match folder {
        Some(folder) => folder,
        None => RunFolder::shared(path)?,
    })
}

/// What each rank does for itself, one after the other: those of one host may want the same file.
///
/// # Errors
/// Those of the work.
pub fn in_turn<T>(ranks: &Ranks, mut work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut done = None;
    for rank in 0..ranks.count() {
        if rank == ranks.rank() {
            done = Some(work()?);
        }
        ranks.wait_for_all()?;
    }
    done.context("each rank has its turn")
}

/// A stage that is the first rank's work alone: the others come to it when it is done, and find it so.
///
/// # Errors
/// Those of the stage.
pub fn first<T>(ranks: &Ranks, mut stage: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    if ranks.is_first() {
        let done = stage()?;
        ranks.wait_for_all()?;
        return Ok(done);
    }
    ranks.wait_for_all()?;
    stage()
}

/// What a stage that all ranks work at gave, if it is done; else readied for them.
///
/// # Errors
/// Those of the stage's folder.
pub fn begin<T: DeserializeOwned>(ranks: &Ranks, stage: &Stage) -> anyhow::Result<Option<T>> {
    let done = stage.done()?;
    // None begins it before all have looked, and all have to have seen the same.
    let mut seen = [if done.is_some() { 1.0 } else { 0.0 }];
    ranks.sum_f64(&mut seen)?;
    if seen[0] != 0.0 && seen[0] != ranks.count() as f64 {
        return Err(StageError::NotShared { path: stage.path().to_owned() }.into());
    }
    if done.is_none() && ranks.is_first() {
        stage.begin()?;
    }
    ranks.wait_for_all()?;
    Ok(done)
}

/// The end of such a stage: `finish` is the first rank's, which measures and writes; the others read what it came to.
///
/// # Errors
/// Those of `finish`.
pub fn finish<T: DeserializeOwned>(
    ranks: &Ranks,
    stage: &Stage,
    finish: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if ranks.is_first() {
        let done = finish()?;
        ranks.wait_for_all()?;
        return Ok(done);
    }
    ranks.wait_for_all()?;
    let done: Option<T> = stage.done()?;
    done.ok_or_else(|| StageError::NotShared { path: stage.path().to_owned() }.into())
}

/// How many parts a step has, among ranks: as the recipe says or, if that says nothing of parts, one a rank.
///
/// # Errors
/// A batch that cannot be shared out so.
pub fn parts(ranks: &Ranks, section: &str, batch: usize, accumulate: usize) -> anyhow::Result<usize> {
    let parts = if accumulate == 1 { ranks.count() } else { accumulate };
    if !batch.is_multiple_of(parts) || !parts.is_multiple_of(ranks.count()) {
        return Err(Usage::new(format!(
            "{section}.batch_size is {batch} and {section}.accumulate {accumulate}, and there are {} ranks: a batch \
             should be a multiple of its parts, and these of the ranks",
            ranks.count()
        ))
        .into());
    }
    Ok(parts)
}
