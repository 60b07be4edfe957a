-- until: 16
-- check: subscription "follows" of database "subscriptions_on" will be disabled
-- A subscription that is on: an upgrade from before 17 leaves it switched off, which is told, with the way back.
CREATE TABLE t (a int PRIMARY KEY);
CREATE SUBSCRIPTION follows CONNECTION 'host=/nowhere dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = 'follows');
ALTER SUBSCRIPTION follows ENABLE;
