-- since: 18
-- Keys over time, which 18 has.
CREATE EXTENSION btree_gist;
CREATE TABLE a (id int, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS));
CREATE TABLE b (id int, during daterange, FOREIGN KEY (id, PERIOD during) REFERENCES a (id, PERIOD during));
INSERT INTO a VALUES (1, '[2026-01-01,2026-02-01)');
INSERT INTO b VALUES (1, '[2026-01-05,2026-01-06)');
