//! How sessions that compare are set up.

/// For every query: nothing that a role or a database has set may change what is read, and how it is written.
pub(super) const SETTINGS: &str = "\
SET client_encoding = 'UTF8'; SET search_path = pg_catalog; SET row_security = off; SET jit = off;
SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex';
SET extra_float_digits = 1; SET lc_monetary = 'C'; SET xmlbinary = 'base64'; SET quote_all_identifiers = off;
SET statement_timeout = 0; SET lock_timeout = 0; SET default_transaction_read_only = on;
";
