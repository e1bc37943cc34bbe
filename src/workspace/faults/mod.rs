//! Bad luck: what saves, restores and updates leave behind when the store, the directory or a collector is against them.
//!
//! | file | what it holds |
//! |---|---|
//! | `scene` | a store whose luck is planned, hosts that use it, and what one sees of a directory |
//! | `growth` | directories made of a seed, and changed by one |
//! | `collector` | the part of a collector that writers have to live with |
//! | `strokes` | every write and every read fails once |
//! | `collections` | what nobody needs goes |
//! | `evictions` | a collector takes a save for dead |
//! | `surrenders` | saves that are given up |
//! | `lies` | manifests that claim what is not so |
//! | `storms` | everything fails now and then |
//! | `damage` | flipped bits |
//! | `sources` | directories that are hard to read |
//! | `targets` | places that are hard to write to |
//! | `updates` | directories that are made equal to a revision |
//! | `rounds` | what comes back is what was saved |
//! | `schedules` | everybody at once, one operation after the other, in any order |
//! | `retention` | prunes and undos of which anything fails |

mod collections;
mod collector;
mod damage;
mod evictions;
mod growth;
mod lies;
mod retention;
mod rounds;
mod scene;
mod schedules;
mod sources;
mod storms;
mod strokes;
mod surrenders;
mod targets;
mod updates;
