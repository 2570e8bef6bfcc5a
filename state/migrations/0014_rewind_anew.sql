-- Rewinds that have what was handled decided anew.

ALTER TABLE rewinds ADD COLUMN again boolean NOT NULL DEFAULT false;
ALTER TABLE rewinds ADD COLUMN rounds json NOT NULL DEFAULT '{}'; -- how many were decided anew, and how many not, and why
