-- Keys between partitioned tables, triggers on them, and a partition by an expression of a boolean.
CREATE TABLE r (a int PRIMARY KEY) PARTITION BY RANGE (a);
CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (100);
CREATE TABLE p (a int REFERENCES r, b text NOT NULL) PARTITION BY LIST ((a % 2 = 0));
CREATE TABLE p_even PARTITION OF p FOR VALUES IN (true);
CREATE TABLE p_odd PARTITION OF p FOR VALUES IN (false);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.b := NEW.b || ''!''; RETURN NEW; END';
CREATE TRIGGER note BEFORE INSERT ON p FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE p_odd DISABLE TRIGGER note;
INSERT INTO r SELECT generate_series(1, 9);
INSERT INTO p SELECT a, 'x' FROM r;
