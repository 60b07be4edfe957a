-- A sequence that belongs to a column of another table, one shared by two tables, one in another schema.
CREATE SCHEMA s;
CREATE SEQUENCE s.shared;
CREATE TABLE a (n int DEFAULT nextval('s.shared'));
CREATE TABLE b (n int DEFAULT nextval('s.shared'::regclass), m serial);
ALTER SEQUENCE s.shared OWNED BY NONE;
CREATE TABLE c (n int);
CREATE SEQUENCE of_c OWNED BY c.n;
INSERT INTO a DEFAULT VALUES;
INSERT INTO b DEFAULT VALUES;
SELECT nextval('of_c');
