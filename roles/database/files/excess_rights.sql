-- Returns one statement for each right of our roles, or of PUBLIC, that exceeds the rights in this file. The statements revoke
-- those rights. Rights that a school granted to roles of its own are not included.
WITH expected (kind, grantee, privilege) AS (VALUES
  ('table', 'scratch4school_app', 'SELECT'), ('table', 'scratch4school_app', 'INSERT'),
  ('table', 'scratch4school_app', 'UPDATE'), ('table', 'scratch4school_app', 'DELETE'),
  ('table', 'scratch4school_backup', 'SELECT'),
  ('sequence', 'scratch4school_app', 'SELECT'), ('sequence', 'scratch4school_app', 'USAGE'),
  ('sequence', 'scratch4school_backup', 'SELECT'),
  ('schema', 'scratch4school_app', 'USAGE'), ('schema', 'scratch4school_backup', 'USAGE'),
  -- PostgreSQL's default, with which a role sees names only.
  ('schema', 'public', 'USAGE'),
  ('database', 'scratch4school_app', 'CONNECT'), ('database', 'scratch4school_migrator', 'CONNECT'),
  ('database', 'scratch4school_backup', 'CONNECT'), ('database', 'scratch4school_monitor', 'CONNECT')
), memberships (granted, member) AS (VALUES
  ('scratch4school_owner', 'scratch4school_migrator'), ('pg_monitor', 'scratch4school_monitor')
), ours (oid) AS (
  SELECT 0 UNION ALL SELECT oid FROM pg_roles WHERE rolname LIKE 'scratch4school\_%'
), granted AS (
  SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind, oid::regclass::text AS name, relowner AS owner, acl.*
  FROM pg_class, aclexplode(relacl) AS acl
  WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
  UNION ALL
  SELECT 'schema', quote_ident(nspname), nspowner, acl.* FROM pg_namespace, aclexplode(nspacl) AS acl WHERE nspname = 'public'
  UNION ALL
  SELECT 'database', quote_ident(datname), datdba, acl.* FROM pg_database, aclexplode(datacl) AS acl
  WHERE datname = current_database()
), excess AS (
  SELECT granted.*, CASE grantee WHEN 0 THEN 'public' ELSE grantee::regrole::text END AS who
  FROM granted WHERE grantee <> owner AND grantee IN (SELECT oid FROM ours)
)
SELECT format('REVOKE %s ON %s %s FROM %s CASCADE', privilege_type, kind, name, who) AS statement
FROM excess WHERE is_grantable OR (kind, who, privilege_type) NOT IN (SELECT * FROM expected)
UNION ALL
SELECT format('REVOKE %s (%I) ON TABLE %s FROM %s CASCADE', acl.privilege_type, attname, attrelid::regclass,
              CASE acl.grantee WHEN 0 THEN 'public' ELSE acl.grantee::regrole::text END)
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid, aclexplode(attacl) AS acl
WHERE relnamespace = 'public'::regnamespace AND acl.grantee <> relowner AND acl.grantee IN (SELECT oid FROM ours)
UNION ALL
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %s %s REVOKE %s ON %s FROM %s', defaclrole::regrole,
              CASE defaclnamespace WHEN 0 THEN '' ELSE 'IN SCHEMA ' || defaclnamespace::regnamespace END, acl.privilege_type,
              CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' ELSE 'SCHEMAS' END,
              CASE acl.grantee WHEN 0 THEN 'public' ELSE acl.grantee::regrole::text END)
FROM pg_default_acl, aclexplode(defaclacl) AS acl
WHERE acl.grantee <> defaclrole AND acl.grantee IN (SELECT oid FROM ours) AND (defaclrole::regrole::text <> 'scratch4school_owner' OR acl.is_grantable
  OR (CASE defaclobjtype WHEN 'r' THEN 'table' WHEN 'S' THEN 'sequence' ELSE 'other' END,
      CASE acl.grantee WHEN 0 THEN 'public' ELSE acl.grantee::regrole::text END, acl.privilege_type) NOT IN (SELECT * FROM expected))
UNION ALL
SELECT DISTINCT format('REVOKE %s FROM %s', roleid::regrole, member::regrole) FROM pg_auth_members
WHERE member IN (SELECT oid FROM ours)
  AND ((roleid::regrole::text, member::regrole::text) NOT IN (SELECT * FROM memberships) OR admin_option)
UNION ALL
SELECT format('ALTER %s %s OWNER TO scratch4school_owner', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid::regclass)
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relowner <> 'scratch4school_owner'::regrole
  AND relowner IN (SELECT oid FROM ours)
UNION ALL
SELECT format('ALTER ROLE %s NOBYPASSRLS', rolname) FROM pg_roles WHERE rolname LIKE 'scratch4school\_%' AND rolbypassrls
UNION ALL
SELECT format('ALTER ROLE %s CONNECTION LIMIT -1 VALID UNTIL ''infinity''', rolname) FROM pg_roles
WHERE rolname LIKE 'scratch4school\_%' AND (rolconnlimit <> -1 OR rolvaliduntil <> 'infinity')
UNION ALL
SELECT format('ALTER ROLE %s %s RESET %I', setrole::regrole,
              CASE setdatabase WHEN 0 THEN '' ELSE (SELECT format('IN DATABASE %I', datname) FROM pg_database WHERE oid = setdatabase) END,
              split_part(setting, '=', 1))
FROM pg_db_role_setting, unnest(setconfig) AS setting
WHERE setrole IN (SELECT oid FROM ours WHERE oid <> 0)
  AND (setdatabase <> 0 OR split_part(setting, '=', 1)
       NOT IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'default_transaction_read_only'))
ORDER BY statement
