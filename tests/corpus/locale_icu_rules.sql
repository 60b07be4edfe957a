-- since: 16
-- create: LOCALE_PROVIDER icu ICU_LOCALE 'de-AT' ICU_RULES '&a < b < c' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'
-- in place
-- A database with rules of its own for how text is sorted.
CREATE TABLE t (a text PRIMARY KEY);
INSERT INTO t VALUES ('a'), ('b'), ('ab');
