//! Everything that needs booted machines, in one program: it is linked once, and its tests run beside each other.
//!
//! `MATRIX_POSTGRES_TESTS=all cargo test --test booted checks::` runs those of one file.
#![allow(unreachable_pub, reason = "what is shared by two files of this program")]

mod legal;
mod machine;

mod adopted;
mod attacks;
mod backups;
mod checks;
mod comparisons;
mod configurations;
mod confinement;
mod container_upgrades;
mod containers;
mod corpus;
mod databases;
mod debian;
mod encryption;
mod external;
mod foreign;
mod guests;
mod life;
mod links;
mod machines;
mod nineteen;
mod no_return;
mod notices;
mod offsite;
mod online;
mod pages;
mod pgbackrest;
mod pgbackrest_trials;
mod pgbackrest_upgrades;
mod places;
mod regression;
mod restores;
mod rpm;
mod second;
mod sequences;
mod trials;
mod upgrades;
mod watch;
