//! Integration tests of results, reports and the README's tables.

mod qbert;
mod readme;
mod report;
mod result;
