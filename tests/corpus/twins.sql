-- differs across majors: ; Type: VIEW; 
-- The same names in many schemas and kinds: what is told apart by more than its name.
CREATE SCHEMA a;
CREATE SCHEMA b;
CREATE TABLE a.x (x int);
CREATE TABLE b.x (x int PRIMARY KEY);
CREATE VIEW public.x AS SELECT x FROM a.x;
CREATE FUNCTION a.x(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION a.x(text) RETURNS int LANGUAGE sql AS 'SELECT 2';
CREATE FUNCTION a.x(a.x) RETURNS int LANGUAGE sql AS 'SELECT 3';
CREATE INDEX x_x ON a.x (x);
CREATE INDEX x_x ON b.x (x);
INSERT INTO a.x VALUES (1);
INSERT INTO b.x VALUES (2);
