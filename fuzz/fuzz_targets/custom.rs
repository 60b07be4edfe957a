//! Dumps in pg_dump's custom format: whatever the bytes are, reading them ends, with what is in them or with an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| matrix_postgres::backup::fuzzing::custom(data));
