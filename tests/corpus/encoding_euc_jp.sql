-- create: ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C'
-- A database in EUC_JP.
CREATE TABLE "表" ("名" text);
INSERT INTO "表" VALUES ('日本語'), ('かな');
COMMENT ON COLUMN "表"."名" IS '名前';
