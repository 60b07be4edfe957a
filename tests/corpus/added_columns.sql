-- Columns with a default that were added to rows that were there: the rows themselves do not have them.
CREATE TABLE t (a int);
INSERT INTO t SELECT generate_series(1, 10);
ALTER TABLE t ADD COLUMN b text NOT NULL DEFAULT 'it''s new', ADD COLUMN c int[] DEFAULT '{1,2}', ADD COLUMN d timestamptz DEFAULT '2026-01-01 00:00+00';
ALTER TABLE t ALTER COLUMN b SET DEFAULT 'newer';
ALTER TABLE t ALTER COLUMN c DROP DEFAULT;
