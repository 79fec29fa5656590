-- Row level security on every table of the schema that is first in the search path. Runs after the migrations of
-- each schema, as often as wanted: it changes only what is not as it should be, so it takes no locks in a settled
-- database. The application's role sees and writes the rows of the tenant that its transaction is bound to by
--   select set_config('app.tenant_id', $1, true)
-- and without a binding none: outside a transaction the setting is null or empty, and no tenant has an empty id.
do $$
declare
  each record;
  own constant text := 'tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')';
begin
  execute format('grant usage on schema %I to tenantry_app', current_schema());
  for each in
    select c.oid, c.relname, c.relrowsecurity and c.relforcerowsecurity as protected
    from pg_class c
    where c.relnamespace = quote_ident(current_schema())::regnamespace and c.relkind in ('r', 'p')
      and not (c.relname in ('migration', 'migration_applied') and current_schema() = 'tenantry')
  loop
    if not each.protected then
      execute format('alter table %I enable row level security, force row level security', each.relname);
    end if;
    if not exists (select from pg_policy where polrelid = each.oid and polname = 'own_select') then
      execute format('create policy own_select on %I for select to tenantry_app using (%s)', each.relname, own);
    end if;
    if not exists (select from pg_policy where polrelid = each.oid and polname = 'own_insert') then
      execute format('create policy own_insert on %I for insert to tenantry_app with check (%s)', each.relname, own);
    end if;
    if not exists (select from pg_policy where polrelid = each.oid and polname = 'own_update') then
      execute format('create policy own_update on %I for update to tenantry_app using (%s) with check (%s)',
        each.relname, own, own);
    end if;
    if not exists (select from pg_policy where polrelid = each.oid and polname = 'own_delete') then
      execute format('create policy own_delete on %I for delete to tenantry_app using (%s)', each.relname, own);
    end if;
    if not (has_table_privilege('tenantry_app', each.oid, 'select')
        and has_table_privilege('tenantry_app', each.oid, 'insert')
        and has_table_privilege('tenantry_app', each.oid, 'update')
        and has_table_privilege('tenantry_app', each.oid, 'delete')) then
      execute format('grant select, insert, update, delete on %I to tenantry_app', each.relname);
    end if;
  end loop;
end
$$;
