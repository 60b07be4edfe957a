-- create: ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'
-- A database that takes any bytes, and has some that are no UTF-8; a name with such bytes is in another file.
CREATE TABLE t (a text);
INSERT INTO t VALUES (E'\xc3\xa4'), (E'\xff\xfe'), ('plain');
