-- Exclusion constraints: deferrable, of a part, by expressions, with operators of an extension in another schema.
CREATE SCHEMA ext;
CREATE EXTENSION btree_gist SCHEMA ext;
CREATE TABLE t (room int, during tsrange, EXCLUDE USING gist (room WITH =, during WITH &&) WHERE (room > 0) DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE t ADD CONSTRAINT no_circle EXCLUDE USING gist (circle(point(room, 0), 0.1) WITH &&);
INSERT INTO t SELECT n, tsrange('2026-01-01', '2026-01-02') FROM generate_series(1, 10) n;
