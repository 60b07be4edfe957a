-- Rules: with conditions, several actions, disabled, ALWAYS, and NOTIFY.
CREATE TABLE t (id int, v text);
CREATE TABLE log (what text);
CREATE RULE a AS ON INSERT TO t WHERE new.id > 5 DO ALSO INSERT INTO log VALUES ('large');
CREATE RULE b AS ON UPDATE TO t DO ALSO (INSERT INTO log VALUES ('one'); INSERT INTO log VALUES ('two'); NOTIFY x);
CREATE RULE c AS ON DELETE TO t DO INSTEAD NOTHING;
ALTER TABLE t DISABLE RULE b;
ALTER TABLE t ENABLE ALWAYS RULE c;
COMMENT ON RULE a ON t IS 'a rule';
INSERT INTO t SELECT generate_series(1, 10), 'x';
