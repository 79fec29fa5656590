-- What the application's role may do to schemas, and nothing more: make and drop the one of the tenant that its
-- transaction is bound to. Runs with every migration, in the pool's schema alone.
create or replace function tenantry.bound_tenant() returns text
language plpgsql stable set search_path = pg_catalog as $$
declare
  tenant constant text := nullif(current_setting('app.tenant_id', true), '');
begin
  if tenant is null or tenant !~ '^proj_[A-Za-z0-9_-]{1,58}$' then
    raise exception 'no tenant is bound that may have a schema of its own' using errcode = 'insufficient_privilege';
  end if;
  return tenant;
end
$$;

-- A new schema repeats the pool's whole history, so that both are the same by construction.
create or replace function tenantry.create_tenant_schema() returns void
language plpgsql security definer set search_path = pg_catalog as $$
declare
  tenant constant text := tenantry.bound_tenant();
  step record;
begin
  perform pg_advisory_xact_lock(hashtext('tenantry schema ' || tenant));
  if exists (select from pg_namespace where nspname = tenant) then
    return;
  end if;
  -- Whoever adds a migration waits for this transaction, and so finds this schema when it looks for all of them.
  lock table tenantry.migration in share mode;
  execute format('create schema %I', tenant);
  perform set_config('search_path', quote_ident(tenant), true);
  for step in select name, body, digest from tenantry.migration order by every_time, name loop
    execute step.body;
    insert into tenantry.migration_applied (schema_name, name, digest) values (tenant, step.name, step.digest);
  end loop;
end
$$;

create or replace function tenantry.drop_tenant_schema() returns void
language plpgsql security definer set search_path = pg_catalog as $$
declare
  tenant constant text := tenantry.bound_tenant();
begin
  perform pg_advisory_xact_lock(hashtext('tenantry schema ' || tenant));
  execute format('drop schema if exists %I cascade', tenant);
  delete from tenantry.migration_applied where schema_name = tenant;
end
$$;

create or replace function tenantry.has_tenant_schema() returns boolean
language sql stable set search_path = pg_catalog as $$
  select exists (select from pg_namespace where nspname = tenantry.bound_tenant())
$$;

revoke all on function tenantry.bound_tenant, tenantry.create_tenant_schema, tenantry.drop_tenant_schema,
  tenantry.has_tenant_schema from public;
grant usage on schema tenantry to tenantry_app;
grant execute on function tenantry.bound_tenant, tenantry.create_tenant_schema, tenantry.drop_tenant_schema,
  tenantry.has_tenant_schema to tenantry_app;
