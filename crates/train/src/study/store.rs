//! All trials of a study in one SQLite file: what is to be run, what runs, what became of it.
//!
//! Several processes may take trials from one file. A trial that a process took and never finished is taken again when the
//! study is next started.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::{TrialOptions, TrialOutcome};

/// Raised whenever the file changes its form.
const VERSION: i64 = 1;

/// What can be wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is none, or was damaged.
    #[error("{} is damaged or no study ({reason}); move it away to begin anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// It is that of other settings.
    #[error(
        "{} holds the study of another recipe: {difference}; choose another --out, or move the file away",
        path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// The first setting that differs.
        difference: String,
    },
    /// It cannot be opened, read or written.
    #[error("cannot use {}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// Where a trial stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nobody has taken it yet.
    Pending,
    /// A process works on it, or did when it ended.
    Running,
    /// It has an outcome.
    Done,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
        }
    }
}

/// A trial.
#[derive(Clone, Debug, PartialEq)]
pub struct StudyTrial {
    /// Its row.
    pub id: i64,
    /// The name of what is studied.
    pub optimizer: String,
    /// Examples a step.
    pub batch: usize,
    /// The number of its setting, from 0.
    pub setting: usize,
    /// The number of its repetition, from 0 for the search's own.
    pub repetition: usize,
    /// What it is told.
    pub options: TrialOptions,
    /// Where it stands.
    pub status: Status,
    /// What became of it.
    pub outcome: Option<TrialOutcome>,
}

/// How many trials of a study there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Planned so far.
    pub all: usize,
    /// With an outcome.
    pub done: usize,
    /// Taken by a process.
    pub running: usize,
}

/// The file.
pub struct StudyStore {
    path: PathBuf,
    connection: Connection,
}

impl StudyStore {
    /// Opens the file of a study, or makes it; `settings` is all that its outcome depends on.
    ///
    /// # Errors
    /// A file that is no study, or that of other settings.
    pub fn open(path: &Path, settings: &serde_json::Value) -> Result<Self, StoreError> {
        let connection = Connection::open(path).map_err(|error| failed(path, error))?;
        let store = Self { path: path.to_owned(), connection };
        store.prepare(settings)?;
        Ok(store)
    }

    fn prepare(&self, settings: &serde_json::Value) -> Result<(), StoreError> {
        let failed = |error| failed(&self.path, error);
        // Another process may be at it; its turn takes no longer than a row.
        self.connection.busy_timeout(Duration::from_secs(60)).map_err(failed)?;
        self.connection
            .execute_batch(
                "CREATE TABLE IF NOT EXISTS study (version INTEGER NOT NULL, settings TEXT NOT NULL);
                 CREATE TABLE IF NOT EXISTS trial (
                     id INTEGER PRIMARY KEY,
                     optimizer TEXT NOT NULL,
                     batch INTEGER NOT NULL,
                     setting INTEGER NOT NULL,
                     repetition INTEGER NOT NULL,
                     options TEXT NOT NULL,
                     status TEXT NOT NULL,
                     process INTEGER,
                     outcome TEXT,
                     steps_to_loss REAL,
                     steps_to_accuracy REAL,
                     diverged_at INTEGER,
                     seconds REAL,
                     UNIQUE (optimizer, batch, setting, repetition)
                 );
                 CREATE TABLE IF NOT EXISTS curve (
                     trial INTEGER NOT NULL REFERENCES trial (id),
                     step INTEGER NOT NULL,
                     loss REAL NOT NULL,
                     accuracy REAL NOT NULL,
                     seconds REAL NOT NULL,
                     PRIMARY KEY (trial, step)
                 );",
            )
            .map_err(failed)?;
        let found = self
            .connection
            .query_row("SELECT version, settings FROM study", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })
            .optional()
            .map_err(failed)?;
        let own = settings.to_string();
        match found {
            None => {
                let insert = "INSERT INTO study (version, settings) VALUES (?1, ?2)";
                self.connection.execute(insert, params![VERSION, own]).map_err(failed)?;
                Ok(())
            }
            Some((VERSION, stored)) if stored == own => Ok(()),
            Some((VERSION, stored)) => {
                let stored = serde_json::from_str(&stored).unwrap_or(serde_json::Value::Null);
                let difference = difference("", &stored, settings).unwrap_or_else(|| "its settings differ".to_owned());
                Err(StoreError::Other { path: self.path.clone(), difference })
            }
            Some((version, _)) => {
                let reason = format!("it is of version {version}, this program's are of version {VERSION}");
                Err(StoreError::Damaged { path: self.path.clone(), reason })
            }
        }
    }

    /// Puts trials in that are not there yet; their `id`, status and outcome do not count.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn plan(&mut self, trials: &[StudyTrial]) -> Result<(), StoreError> {
        let path = self.path.clone();
        let failed = |error| failed(&path, error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        for trial in trials {
            let insert = "INSERT OR IGNORE INTO trial (optimizer, batch, setting, repetition, options, status)
                          VALUES (?1, ?2, ?3, ?4, ?5, 'pending')";
            let options = serde_json::to_string(&trial.options).unwrap_or_default();
            let (batch, setting) = (trial.batch as i64, trial.setting as i64);
            let values = params![trial.optimizer, batch, setting, trial.repetition as i64, options];
            transaction.execute(insert, values).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }

    /// Makes trials of processes that have ended pending again; how many. Only to be called where no other process is at
    /// the study.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn release(&self) -> Result<usize, StoreError> {
        let update = "UPDATE trial SET status = 'pending', process = NULL WHERE status = 'running'";
        self.connection.execute(update, []).map_err(|error| failed(&self.path, error))
    }

    /// How many trials there are.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        let select =
            "SELECT COUNT(*), COALESCE(SUM(status = 'done'), 0), COALESCE(SUM(status = 'running'), 0) FROM trial";
        let counts = self.connection.query_row(select, [], |row| {
            Ok([row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?]
                .map(|it| it.unsigned_abs() as usize))
        });
        let [all, done, running] = counts.map_err(|error| failed(&self.path, error))?;
        Ok(Counts { all, done, running })
    }

    /// Takes the next trial that nobody has, in the order in which they were planned.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn take(&mut self) -> Result<Option<StudyTrial>, StoreError> {
        let path = self.path.clone();
        let failed = |error| failed(&path, error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let next = "SELECT id FROM trial WHERE status = 'pending' ORDER BY id LIMIT 1";
        let Some(id) = transaction.query_row(next, [], |row| row.get::<_, i64>(0)).optional().map_err(failed)? else {
            return Ok(None);
        };
        let update = "UPDATE trial SET status = 'running', process = ?2 WHERE id = ?1";
        transaction.execute(update, params![id, std::process::id()]).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(self.some(Some(id))?.pop())
    }

    /// Writes down what became of a trial that this process took; whether it still was its own.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&mut self, id: i64, outcome: &TrialOutcome) -> Result<bool, StoreError> {
        let path = self.path.clone();
        let failed = |error| failed(&path, error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        // The curve has a table of its own.
        let rest = TrialOutcome { curve: Vec::new(), ..outcome.clone() };
        let update = "UPDATE trial SET status = 'done', outcome = ?2, steps_to_loss = ?3, steps_to_accuracy = ?4,
                      diverged_at = ?5, seconds = ?6 WHERE id = ?1 AND status = 'running' AND process = ?7";
        let text = serde_json::to_string(&rest).unwrap_or_default();
        let diverged = outcome.diverged_at.map(|step| step as i64);
        let values = params![
            id,
            text,
            outcome.steps_to_loss,
            outcome.steps_to_accuracy,
            diverged,
            outcome.seconds,
            std::process::id()
        ];
        if transaction.execute(update, values).map_err(failed)? == 0 {
            return Ok(false);
        }
        for look in &outcome.curve {
            let insert =
                "INSERT OR REPLACE INTO curve (trial, step, loss, accuracy, seconds) VALUES (?1, ?2, ?3, ?4, ?5)";
            let values = params![id, look.step as i64, look.loss, look.accuracy, look.seconds];
            transaction.execute(insert, values).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        Ok(true)
    }

    /// All trials, in the order in which they were planned, with their curves.
    ///
    /// # Errors
    /// The file cannot be read, or a row of it makes no sense.
    pub fn trials(&self) -> Result<Vec<StudyTrial>, StoreError> {
        self.some(None)
    }

    /// One of them, or all.
    fn some(&self, id: Option<i64>) -> Result<Vec<StudyTrial>, StoreError> {
        let failed = |error| failed(&self.path, error);
        let select = "SELECT id, optimizer, batch, setting, repetition, options, status, outcome FROM trial
                      WHERE ?1 IS NULL OR id = ?1 ORDER BY id";
        let mut statement = self.connection.prepare(select).map_err(failed)?;
        let rows = statement.query_map(params![id], |row| {
            Ok((
                (row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?),
                (row.get::<_, i64>(4)?, row.get::<_, String>(5)?, row.get::<_, String>(6)?),
                row.get::<_, Option<String>>(7)?,
            ))
        });
        let mut trials = Vec::new();
        for row in rows.map_err(failed)? {
            let ((id, optimizer, batch, setting), (repetition, options, status), outcome) = row.map_err(failed)?;
            let wrong = |reason: String| StoreError::Damaged {
                path: self.path.clone(),
                reason: format!("trial {id}: {reason}"),
            };
            let count = |number: i64| usize::try_from(number).map_err(|error| wrong(error.to_string()));
            let status = [Status::Pending, Status::Running, Status::Done].into_iter().find(|it| it.name() == status);
            let mut outcome: Option<TrialOutcome> = outcome
                .map(|text| serde_json::from_str(&text).map_err(|error| wrong(error.to_string())))
                .transpose()?;
            if let Some(outcome) = &mut outcome {
                outcome.curve = self.curve(id)?;
            }
            trials.push(StudyTrial {
                id,
                optimizer,
                batch: count(batch)?,
                setting: count(setting)?,
                repetition: count(repetition)?,
                options: serde_json::from_str(&options).map_err(|error| wrong(error.to_string()))?,
                status: status.ok_or_else(|| wrong("its status is unknown".to_owned()))?,
                outcome,
            });
        }
        Ok(trials)
    }

    fn curve(&self, trial: i64) -> Result<Vec<super::Look>, StoreError> {
        let failed = |error| failed(&self.path, error);
        let select = "SELECT step, loss, accuracy, seconds FROM curve WHERE trial = ?1 ORDER BY step";
        let mut statement = self.connection.prepare(select).map_err(failed)?;
        let looks = statement.query_map([trial], |row| {
            let step = row.get::<_, i64>(0)?.unsigned_abs();
            Ok(super::Look { step, loss: row.get(1)?, accuracy: row.get(2)?, seconds: row.get(3)? })
        });
        looks.map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
    }
}

fn failed(path: &Path, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            StoreError::Damaged { path, reason: error.to_string() }
        }
        _ if matches!(error, rusqlite::Error::InvalidColumnType(..)) => {
            StoreError::Damaged { path, reason: error.to_string() }
        }
        _ => StoreError::Sqlite { path, source: error },
    }
}

/// The first place where two settings differ.
fn difference(path: &str, a: &serde_json::Value, b: &serde_json::Value) -> Option<String> {
    if a == b {
        return None;
    }
    if let (Some(a), Some(b)) = (a.as_object(), b.as_object()) {
        let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
        return keys.into_iter().find_map(|key| {
            let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let [a, b] = [a, b].map(|map| map.get(key).unwrap_or(&serde_json::Value::Null));
            difference(&at, a, b)
        });
    }
    let short = |value: &serde_json::Value| {
        let text = value.to_string();
        match text.char_indices().nth(60) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    };
    Some(format!("{path} is {} there and {} here", short(a), short(b)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::study::Look;
    use crate::{OptimizerOptions, Schedule};

    fn trial(batch: usize, setting: usize) -> StudyTrial {
        let options = TrialOptions {
            optimizer: OptimizerOptions::default(),
            schedule: Schedule::new(0.1, 0.0, 10),
            accumulate: 1,
            look_every: 5,
            seed: 1,
            target_loss: 1.0,
            target_accuracy: None,
            stop_at_targets: true,
        };
        let (status, optimizer) = (Status::Pending, "sgd".to_owned());
        StudyTrial { id: 0, optimizer, batch, setting, repetition: 0, options, status, outcome: None }
    }

    fn outcome() -> TrialOutcome {
        let look = |step| Look { step, loss: 2.0 / (1.0 + step as f64), accuracy: step as f64, seconds: 0.1 };
        TrialOutcome {
            curve: [0, 5, 10].map(look).to_vec(),
            steps_to_loss: Some(1.0 / 3.0),
            seconds: 3.5,
            steps: 10,
            ..TrialOutcome::default()
        }
    }

    #[test]
    fn trials_are_taken_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("study.sqlite");
        let settings = json!({ "settings": 2 });
        let mut store = StudyStore::open(&path, &settings).unwrap();
        let planned = [trial(64, 0), trial(64, 1), trial(128, 0)];
        store.plan(&planned).unwrap();
        store.plan(&planned).unwrap();
        assert_eq!(store.trials().unwrap().len(), 3, "a plan is made once");
        let mut other = StudyStore::open(&path, &settings).unwrap();
        let first = store.take().unwrap().unwrap();
        let second = other.take().unwrap().unwrap();
        assert_eq!((first.setting, second.setting, first.status), (0, 1, Status::Running));
        assert!(store.finish(first.id, &outcome()).unwrap());
        assert!(!store.finish(first.id, &outcome()).unwrap(), "it is nobody's any more");
        assert_eq!(store.counts().unwrap(), Counts { all: 3, done: 1, running: 1 });
        drop((store, other));

        let mut store = StudyStore::open(&path, &settings).unwrap();
        assert_eq!(store.release().unwrap(), 1, "the second was lost in flight");
        assert_eq!(store.trials().unwrap()[0].outcome, Some(outcome()));
        assert_eq!(store.take().unwrap().unwrap().id, second.id);
        assert!(store.take().unwrap().is_some() && store.take().unwrap().is_none());
    }

    #[test]
    fn what_is_no_study_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("study.sqlite");
        StudyStore::open(&path, &json!({ "study": { "settings": 2 } })).unwrap();
        let error = StudyStore::open(&path, &json!({ "study": { "settings": 3 } })).err().unwrap().to_string();
        assert!(error.contains("study.settings is 2 there and 3 here"), "{error}");
        std::fs::write(&path, "no database at all, and long enough to be looked at as one; ".repeat(40)).unwrap();
        let error = StudyStore::open(&path, &json!({})).err().unwrap();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        let error = StudyStore::open(&folder.path().join("no/such/folder"), &json!({})).err().unwrap();
        assert!(matches!(error, StoreError::Sqlite { .. }), "{error}");
    }

    #[test]
    fn a_row_that_makes_no_sense_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("study.sqlite");
        let mut store = StudyStore::open(&path, &json!({})).unwrap();
        store.plan(&[trial(64, 0)]).unwrap();
        for (column, value) in [("options", "'{'"), ("status", "'asleep'"), ("batch", "-3"), ("outcome", "'[]'")] {
            store.connection.execute(&format!("UPDATE trial SET {column} = {value}"), []).unwrap();
            let error = store.trials().err().unwrap();
            assert!(matches!(error, StoreError::Damaged { .. }), "{column}: {error}");
        }
    }
}
