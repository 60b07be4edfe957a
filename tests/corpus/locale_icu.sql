-- since: 15
-- create: LOCALE_PROVIDER icu ICU_LOCALE 'de-AT' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'
-- in place
-- A database whose own collation is one of ICU's.
CREATE TABLE t (a text PRIMARY KEY);
INSERT INTO t VALUES ('Äpfel'), ('zebra'), ('Öl'), ('ß');
