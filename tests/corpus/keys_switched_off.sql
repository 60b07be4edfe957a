-- check: the triggers of foreign key many_a_b_fkey of
-- check: the triggers of foreign key odd_id_fkey of
-- Keys whose triggers are switched off although no row violates them: of several columns, partial ones, of other types, and with
-- children that the key does not hold for. Where a type is somebody's own, nobody can tell.
CREATE TABLE "the Keys" ("A" int, b bigint, PRIMARY KEY ("A", b));
INSERT INTO "the Keys" VALUES (1, 1);
CREATE TABLE many (a bigint, b int, FOREIGN KEY (a, b) REFERENCES "the Keys");
CREATE TABLE whole (a bigint, b int, FOREIGN KEY (a, b) REFERENCES "the Keys" MATCH FULL);
CREATE TABLE child () INHERITS (many);
INSERT INTO many VALUES (1, 1), (NULL, 7), (7, NULL), (NULL, NULL);
INSERT INTO whole VALUES (1, 1), (NULL, NULL);
INSERT INTO child VALUES (7, 7);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE odds (id positive PRIMARY KEY);
CREATE TABLE odd (id positive REFERENCES odds);
INSERT INTO odds VALUES (1);
INSERT INTO odd VALUES (1);
ALTER TABLE many DISABLE TRIGGER ALL;
ALTER TABLE whole DISABLE TRIGGER ALL;
ALTER TABLE odd DISABLE TRIGGER ALL;
