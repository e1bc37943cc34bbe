//! Archives from three sides: hostile ones made by hand, our own read back, and those that pass through other programs.
//!
//! | file | what it holds |
//! |---|---|
//! | `tape` | archives made by hand, right and wrong |
//! | `hostile` | what must be refused, and how |
//! | `streams` | compression, cut streams, memory |
//! | `own` | what is written is what is read |
//! | `programs` | GNU tar and bsdtar, both ways |

mod hostile;
mod own;
mod programs;
mod streams;
mod tape;
