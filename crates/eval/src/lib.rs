//! What came out of a run: results as JSON, reports as self-contained HTML, the README's tables.
//!
//! * [`result`]: one [`RunResult`](result::RunResult) a recipe, study or bench, written atomically and read strictly.
//! * [`report`]: a [`Report`](report::Report) of key numbers, tables, charts and pictures, rendered to one HTML file
//!   that needs nothing beside itself.
//! * [`report::readme`]: the README's tables, made from the result files.

mod atomic;
pub mod machine;
pub mod report;
pub mod result;
