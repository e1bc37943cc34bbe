//! The promises of pruning.
//!
//! | file | what it holds |
//! |---|---|
//! | `fleet` | inventories made by hand |
//! | `rules` | tables: each guard and each rule |
//! | `properties` | what holds of any inventory and any rules |
//! | `applying` | plans that become true on a fake engine |

mod applying;
mod fleet;
mod properties;
mod rules;
