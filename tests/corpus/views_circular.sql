-- differs across majors: _RETURN; Type: RULE; 
-- differs across majors: ; Type: VIEW; 
-- Views that need each other by way of their rules, and one that needs a primary key for its GROUP BY.
CREATE VIEW one AS SELECT 1 AS a;
CREATE VIEW two AS SELECT a FROM one;
CREATE OR REPLACE VIEW one AS SELECT a FROM (SELECT 1 AS a) AS x WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_class);
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'x');
CREATE VIEW grouped AS SELECT id, v, count(*) AS n FROM t GROUP BY id;
CREATE RULE ins AS ON INSERT TO two DO INSTEAD INSERT INTO t VALUES (new.a, 'by rule');
