-- since: 14
-- A subscription that is switched off and has no slot.
CREATE TABLE t (a int PRIMARY KEY);
CREATE SUBSCRIPTION subscriptions_off CONNECTION 'dbname=nowhere password=secret' PUBLICATION p, "Q q" WITH (connect = false, slot_name = NONE, binary = true);
COMMENT ON SUBSCRIPTION subscriptions_off IS 'switched off';
