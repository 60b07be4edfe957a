-- since: 17
-- create: LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LC_COLLATE 'C' LC_CTYPE 'C'
-- A database of the provider that 17 brings.
CREATE TABLE t (a text PRIMARY KEY);
INSERT INTO t VALUES ('Äpfel'), ('zebra'), ('Öl'), ('ß');
