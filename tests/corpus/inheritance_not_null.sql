-- NOT NULL of children that their parents do not have, of parents' that came later, and of typed and partitioned ones.
CREATE TABLE parent (a int, b int NOT NULL, c int);
CREATE TABLE child (a int NOT NULL, d int) INHERITS (parent);
CREATE TABLE child2 () INHERITS (parent);
ALTER TABLE child2 ALTER c SET NOT NULL;
CREATE TABLE grandchild () INHERITS (child, child2);
ALTER TABLE parent ADD PRIMARY KEY (a);
INSERT INTO grandchild VALUES (1, 2, 3, 4);
CREATE TABLE p (a int, b int NOT NULL) PARTITION BY LIST (a);
CREATE TABLE p1 (a int NOT NULL, b int NOT NULL);
ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1);
CREATE TABLE p2 PARTITION OF p (a NOT NULL, b DEFAULT 5) FOR VALUES IN (2);
INSERT INTO p VALUES (1, 1), (2, 2);
