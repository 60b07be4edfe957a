-- since: 14
-- differs across majors: ; Type: VIEW; 
-- Functions and procedures whose body is SQL that is kept parsed, over tables and views that come later in a dump.
CREATE TABLE zz (a int);
INSERT INTO zz VALUES (1);
CREATE VIEW zv AS SELECT a FROM zz;
CREATE FUNCTION one() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM zz; END;
CREATE FUNCTION two(x int) RETURNS int LANGUAGE sql RETURN x + 1;
CREATE PROCEDURE three(x int) LANGUAGE sql BEGIN ATOMIC INSERT INTO zz VALUES (x); DELETE FROM zz WHERE a = x; END;
CREATE FUNCTION four() RETURNS SETOF zv LANGUAGE sql BEGIN ATOMIC SELECT a FROM zv; END;
