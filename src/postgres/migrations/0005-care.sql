-- Maintenance: archiving what nobody wants any more, and forgetting what nobody can ask for.

-- Archives a session, if it is still as it was when that was decided, and nobody has it: {archived}, or why not.
create function @schema@.retire(
  p_commit uuid, p_wait_ms integer, p_key text, p_session uuid, p_revision bigint, p_last_seq bigint, p_why text
) returns text[] language plpgsql as $holdfast$
declare
  v_result text[] := @schema@.begin_commit(p_commit, p_wait_ms);
  v_entry @schema@.entries;
  v_log @schema@.logs;
begin
  if v_result is not null then return v_result; end if;
  perform pg_advisory_xact_lock_shared(@schema@.store_lock());
  select * into v_entry from @schema@.entries where key = p_key for update;
  if not found or v_entry.session_id <> p_session or v_entry.revision <> p_revision then return array['changed']; end if;
  select * into v_log from @schema@.logs where session_id = p_session for update;
  if v_log.last_seq <> p_last_seq then return array['changed']; end if;
  if exists (select from @schema@.leases l where l.key = p_key and @schema@.lease_stands(l)) then return array['active-turn']; end if;
  if exists (select from @schema@.inputs where session_id = p_session) then return array['pending-input']; end if;
  perform @schema@.close_log(p_session, 'retained', p_why, null);
  perform @schema@.forget(v_entry.origin, p_session);
  delete from @schema@.entries where key = p_key;
  v_result := array['archived'];
  insert into @schema@.commits (id, result) values (p_commit, v_result);
  return v_result;
end
$holdfast$;

-- Removes the records of closed sessions for good, so many sessions at a time: those closed before p_before, but for the last p_keep of each key.
create function @schema@.remove_archived(p_before bigint, p_keep integer, p_max integer)
  returns table (session_id uuid, key text, bytes bigint) language plpgsql as $holdfast$
#variable_conflict use_column
begin
  return query
    with gone as (
      select l.session_id, l.key, l.bytes from @schema@.logs l
      where l.closed_at < p_before and p_keep <= (
        select count(*) from @schema@.logs n where n.key = l.key and n.closed_at is not null and (n.closed_at, n.session_id) > (l.closed_at, l.session_id))
      order by l.closed_at limit p_max for update skip locked
    ), records as (
      delete from @schema@.records r using gone where r.session_id = gone.session_id
    ), summaries as (
      delete from @schema@.summaries s using gone where s.session_id = gone.session_id
    ), logs as (
      delete from @schema@.logs l using gone where l.session_id = gone.session_id
    )
    select gone.session_id, gone.key, gone.bytes from gone;
end
$holdfast$;

-- Commit ids that nobody can ask for any more: a client gives up within minutes. The number that went.
create function @schema@.forget_commits(p_max integer) returns bigint language sql as $holdfast$
  with gone as (
    delete from @schema@.commits where ctid = any (array(
      select ctid from @schema@.commits where at < clock_timestamp() - interval '1 hour' limit p_max))
    returning 1
  )
  select count(*) from gone
$holdfast$;

-- Makes a session of a closed one, under a fresh id and a key that names none: {restored, records}, {taken} or {none}.
create function @schema@.restore_archived(
  p_commit uuid, p_wait_ms integer, p_archive uuid, p_key text, p_new uuid, p_fields text
) returns text[] language plpgsql as $holdfast$
declare
  v_result text[] := @schema@.begin_commit(p_commit, p_wait_ms);
  v_old @schema@.logs;
  v_now bigint;
  v_records bigint;
begin
  if v_result is not null then return v_result; end if;
  perform pg_advisory_xact_lock_shared(@schema@.store_lock());
  perform pg_advisory_xact_lock(@schema@.key_lock(p_key));
  if exists (select from @schema@.entries where key = p_key) then return array['taken']; end if;
  select * into v_old from @schema@.logs where session_id = p_archive and closed_at is not null for share;
  if not found then return array['none']; end if;
  v_now := @schema@.now_ms();
  insert into @schema@.entries values (p_key, p_new, p_new, 1, v_now, v_now, p_fields, nextval('@schema@.changes'));
  insert into @schema@.logs (session_id, key, origin, previous, created_at, changed_at, last_seq, user_seq, bytes, turn_last)
    values (p_new, p_key, p_new, p_archive, v_now, v_now, v_old.last_seq, v_old.user_seq, v_old.bytes, v_old.turn_last);
  insert into @schema@.records select p_new, seq, kind, part, body from @schema@.records where session_id = p_archive;
  get diagnostics v_records = row_count;
  insert into @schema@.summaries select p_new, seq, up_to, records from @schema@.summaries where session_id = p_archive;
  -- Not by the functions for json: they take \u0000 apart, and refuse.
  insert into @schema@.ids
    select p_new, id, row_number() over (order by seq), p_new, seq + count - 1, count from (
      select seq, substring(part from '^\{"id":("(?:[^"\\]|\\.)*")') as id,
        coalesce(substring(part from '^\{"id":"(?:[^"\\]|\\.)*","count":(\d+)')::integer, 1) as count
      from @schema@.records where session_id = p_new and kind = 'r' and part like '{"id":%'
    ) as with_id
    on conflict (origin, id) do nothing;
  update @schema@.logs set ids = (select count(*) from @schema@.ids where origin = p_new) where session_id = p_new;
  v_result := array['restored', v_records::text];
  insert into @schema@.commits (id, result) values (p_commit, v_result);
  return v_result;
end
$holdfast$;
