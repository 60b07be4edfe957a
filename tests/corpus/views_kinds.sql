-- differs across majors: ; Type: VIEW; 
-- differs: listed
-- Views with options, recursive ones, with CHECK OPTION, with defaults of their own, over functions and VALUES.
-- since: 15
CREATE TABLE t (id int, v text);
INSERT INTO t VALUES (1, 'x'), (2, 'y');
CREATE VIEW barrier WITH (security_barrier) AS SELECT id FROM t WHERE v > 'a';
CREATE VIEW invoker WITH (security_invoker = true) AS SELECT id FROM t;
CREATE VIEW checked AS SELECT id, v FROM t WHERE id > 0 WITH LOCAL CHECK OPTION;
ALTER VIEW checked ALTER COLUMN v SET DEFAULT 'of the view';
CREATE RECURSIVE VIEW numbers (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < 5;
CREATE VIEW listed (a, b) AS VALUES (1, 'x'), (2, NULL);
CREATE VIEW numbered AS SELECT * FROM generate_series(1, 3) WITH ORDINALITY AS g (a, b);
CREATE VIEW nothing AS SELECT;
