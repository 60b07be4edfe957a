-- since: 14
-- differs across majors: ; Type: VIEW; 
-- Aggregates: ordered sets, hypothetical, moving, polymorphic, parallel, with an initial value and a sort operator.
CREATE FUNCTION add(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, 0) + $2';
CREATE AGGREGATE total(int) (SFUNC = add, STYPE = int, INITCOND = '5', COMBINEFUNC = add, PARALLEL = SAFE);
CREATE AGGREGATE moving(int) (SFUNC = int4pl, STYPE = int, MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = int, SSPACE = 8);
CREATE AGGREGATE least_one(int) (SFUNC = int4smaller, STYPE = int, SORTOP = <);
CREATE AGGREGATE collected(anycompatible) (SFUNC = array_append, STYPE = anycompatiblearray);
CREATE AGGREGATE middle(float8 ORDER BY float8) (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_cont_float8_final);
COMMENT ON AGGREGATE total(int) IS 'an aggregate';
CREATE TABLE t (a int);
INSERT INTO t SELECT generate_series(1, 5);
CREATE VIEW v AS SELECT total(a) AS total FROM t;
