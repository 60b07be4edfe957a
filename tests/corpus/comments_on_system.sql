-- Comments on what initdb makes, which only superusers can leave there and no tool carries over.
COMMENT ON FUNCTION pg_catalog.now() IS 'the time';
COMMENT ON TABLE pg_catalog.pg_class IS 'the classes';
CREATE TABLE t (a int);
