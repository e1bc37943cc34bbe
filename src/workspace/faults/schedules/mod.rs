//! Schedules: savers, readers and collectors use one store at once, and a seed decides who is next at every operation.
//!
//! The jobs are the real ones; only the store makes each of their operations wait for its turn. After every write each revision that
//! somebody was told is saved must have all that it needs (protocol, I1), and in the end collections must leave nothing else.
//! `KILN_TEST_SEEDS` says how many seeds are played, `KILN_TEST_SEED` plays one alone.
//!
//! | file | what it holds |
//! |---|---|
//! | `turns` | a store whose every operation waits for its turn |
//! | `book` | what everybody was told, and what must therefore hold |
//! | `actors` | who plays |
//! | `plays` | the plays |

mod actors;
mod book;
mod plays;
mod turns;
