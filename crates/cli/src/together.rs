//! What the ranks of a job do in common beside training: files that one of them writes and all read.

use std::path::Path;

use anyhow::ensure;
use lapidary_collective::Ranks;
use serde::de::DeserializeOwned;

use crate::exit::Usage;
use crate::stage::{RunFolder, Stage, StageError};

/// A run's folder: the first rank holds it, for all of them.
///
/// # Errors
/// Another run holds it; a folder that is not the same one for all ranks.
pub fn folder(ranks: &Ranks, path: &Path) -> anyhow::Result<RunFolder> {
    if ranks.is_first() {
        let folder = RunFolder::open(path)?;
        ranks.wait_for_all()?;
        return Ok(folder);
    }
    ranks.wait_for_all()?;
    ensure!(
        path.join(".lock").is_file(),
        "rank {} does not see {}, which rank 0 has made: --out has to be a folder on storage that all ranks share",
        ranks.rank(),
        path.display()
    );
    Ok(RunFolder::shared(path)?)
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
    // None begins it before all have looked.
    ranks.wait_for_all()?;
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
