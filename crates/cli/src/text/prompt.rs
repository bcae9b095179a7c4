//! What a model is given to write from.

use anyhow::Context;
use lapidary_data::{Tokenizer, english};
use serde::{Deserialize, Serialize};

use crate::recipe::{Form, Task};

/// Ends each document, and each text that is written.
pub const END: &str = "<eos>";
/// Stands between what is written from and what is written.
const SEPARATOR: &str = "<sep>";
/// Fills a canvas behind the end of its text.
const PADDING: &str = "<pad>";

/// The special tokens of texts.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    pub end: u32,
    pub separator: u32,
    pub padding: u32,
}

impl Marks {
    /// # Errors
    /// A tokenizer without one of them.
    pub fn of(tokenizer: &Tokenizer) -> anyhow::Result<Self> {
        let id = |token: &str| tokenizer.id(token).with_context(|| format!("the tokenizer has no token {token}"));
        Ok(Self { end: id(END)?, separator: id(SEPARATOR)?, padding: id(PADDING)? })
    }

    /// What a text that goes on begins with, as if after the end of another: documents follow each other in training.
    pub fn begun(&self, text: &str, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
        Ok([vec![self.end], tokenizer.encode_text(text)?].concat())
    }

    /// What the text of a task is written from, of as many tokens at most.
    pub fn asked(&self, source: &str, tokenizer: &Tokenizer, at_most: usize) -> anyhow::Result<Asked> {
        // So that a word at the beginning is the same token as within.
        let mut prompt = self.begun(&format!(" {source}"), tokenizer)?;
        let tokens = prompt.len() + 1;
        prompt.truncate(at_most.saturating_sub(1));
        prompt.push(self.separator);
        Ok(Asked { cut: prompt.len() < tokens, tokens, prompt })
    }
}

/// A source in tokens.
pub struct Asked {
    pub prompt: Vec<u32>,
    /// Of all of it.
    pub tokens: usize,
    /// Whether its end was lost.
    pub cut: bool,
}

/// The key of `config.json` that says which task a model was fine-tuned on.
pub const TASK: &str = "task";

/// How a model of a task is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskForm {
    pub name: String,
    pub form: Form,
    pub canvas: usize,
}

impl From<&Task> for TaskForm {
    fn from(task: &Task) -> Self {
        Self { name: task.name.clone(), form: task.form, canvas: task.canvas }
    }
}

impl Form {
    /// A text in this form.
    pub fn of(self, text: String) -> String {
        match self {
            Self::Raw => text,
            Self::Words => english::ptb_words(&text),
        }
    }
}
