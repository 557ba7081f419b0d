//! The engine as a whole: sources, circuits, lake and recovery together.

mod backfill;
mod files;
mod foreign;
mod forget;
mod incremental;
mod oracle;
mod reference;
mod regressions;
mod scenario;
mod schedules;
mod states;
mod world;
