-- in place
-- alone: dump 40
-- not taken: fk constraint public.b b_id_fkey
-- differs: b_id_fkey
-- check: the triggers of foreign key b_id_fkey of
-- Keys whose triggers are switched off, so that rows break them.
CREATE TABLE a (id int PRIMARY KEY);
CREATE TABLE b (id int REFERENCES a, CHECK (id > 0));
ALTER TABLE b DISABLE TRIGGER ALL;
INSERT INTO b VALUES (7);
