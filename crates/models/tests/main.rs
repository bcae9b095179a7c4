//! Integration tests of the models, in one binary.

mod checkpoint;
