-- since: 18
-- NOT NULL by itself: not inherited, inherited, not valid in the parent, with comments and names in quotes.
CREATE TABLE parent (a int CONSTRAINT "it's not" NOT NULL NO INHERIT, b int, c int);
CREATE TABLE child (d int) INHERITS (parent);
INSERT INTO child VALUES (NULL, NULL, NULL, 4);
ALTER TABLE parent ADD CONSTRAINT later NOT NULL b NOT VALID;
ALTER TABLE child ADD CONSTRAINT own NOT NULL d;
COMMENT ON CONSTRAINT "it's not" ON parent IS 'never';
COMMENT ON CONSTRAINT own ON child IS 'never';
CREATE TABLE p (a int, b int) PARTITION BY LIST (a);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
ALTER TABLE p1 ADD CONSTRAINT of_p1 NOT NULL b;
ALTER TABLE p ADD CONSTRAINT of_p NOT NULL b;
INSERT INTO p VALUES (1, 1);
ALTER DEFAULT PRIVILEGES GRANT SELECT ON LARGE OBJECTS TO PUBLIC;
CREATE PUBLICATION generated FOR TABLE p WITH (publish_generated_columns = stored);
CREATE TABLE v (a int, b int GENERATED ALWAYS AS (a + 1) VIRTUAL NOT NULL, CHECK (b > 0) NOT ENFORCED);
INSERT INTO v VALUES (1);
