%% Runs scenarios on the supervisor of Erlang/OTP and writes down what it did.
%%
%% main([In, Out]): In holds one Erlang map per scenario, Out gets one line of JSON for each. The steps
%% of a scenario run one after the other, each when the one before has settled; the scenarios side by side.
-module(recorder).
-export([main/1, start_child/3, init/1]).
-behaviour(supervisor).

-define(SETTLE, 15).

main([In, Out]) ->
    logger:set_primary_config(level, none),
    {ok, Scenarios} = file:consult(In),
    Self = self(),
    Pids = [spawn_link(fun() -> Self ! {self(), run(S)} end) || S <- Scenarios],
    Lines = [receive {Pid, Line} -> Line end || Pid <- Pids],
    ok = file:write_file(Out, [[Line, $\n] || Line <- Lines]),
    halt(0).

%% One scenario.

run(#{children := Children, steps := Steps} = Scenario) ->
    process_flag(trap_exit, true),
    Book = spawn_link(fun() -> book([], #{}, maps:from_list([{Id, Fails} || #{id := Id, fails := Fails} <- Children])) end),
    Starting = case supervisor:start_link(?MODULE, {Scenario, Book}) of
                   {ok, Sup} -> put(sup, Sup), <<"ok">>;
                   {error, {shutdown, {failed_to_start_child, Id, _}}} -> <<"failed ", Id/binary>>;
                   {error, _} -> <<"refused">>
               end,
    First = told(Starting, Book, Scenario),
    Rest = steps(Steps, Book, Scenario),
    json([First | Rest]).

steps([], _, _) -> [];
steps([Step | Rest], Book, Scenario) ->
    case sup_lives() of
        false -> [];
        true ->
            Reply = step(Step, Book, Scenario),
            Told = told(Reply, Book, Scenario),
            [Told | steps(Rest, Book, Scenario)]
    end.

sup_lives() ->
    case get(sup) of
        undefined -> false;
        Sup -> is_process_alive(Sup)
    end.

%% [what was answered, what was started and stopped, the children, the counts, how the supervisor ended]
told(Reply, Book, #{strategy := Strategy}) ->
    settle(Book),
    Log = case Strategy of
              simple_one_for_one -> lists:sort(ask(Book, log));
              _ -> ask(Book, log)
          end,
    case sup_lives() of
        true ->
            Which = [[name(Id, Pid, Book), state(Pid)] || {Id, Pid, _, _} <- lists:reverse(which())],
            Counts = supervisor:count_children(get(sup)),
            [Reply, Log, case Strategy of simple_one_for_one -> lists:sort(Which); _ -> Which end,
             [proplists:get_value(Key, Counts) || Key <- [specs, active, supervisors, workers]], null];
        false ->
            Ended = case get(sup) of
                        undefined -> null;
                        Sup -> receive {'EXIT', Sup, Reason} -> class(Reason) after 1000 -> <<"unknown">> end
                    end,
            [Reply, Log, [], [0, 0, 0, 0], Ended]
    end.

which() -> supervisor:which_children(get(sup)).

name(undefined, Pid, Book) -> ask(Book, {name, Pid});
name(Id, _, _) -> Id.

state(Pid) when is_pid(Pid) -> <<"running">>;
state(restarting) -> <<"restarting">>;
state(undefined) -> <<"down">>.

class(normal) -> <<"normal">>;
class(shutdown) -> <<"shutdown">>;
class({shutdown, _}) -> <<"shutdown">>;
class(_) -> <<"failed">>.

%% Until nothing has happened for a while.
settle(Book) ->
    Before = ask(Book, count),
    timer:sleep(?SETTLE),
    try which() catch _:_ -> gone end,  % waits for what the supervisor is doing
    case ask(Book, count) of
        Before -> ok;
        _ -> settle(Book)
    end.

step({exit, Id, Reason}, Book, _) ->
    die(Book, Id, Reason),
    null;
step({together, Deaths}, Book, _) ->
    sys:suspend(get(sup)),
    [begin die(Book, Id, Reason), timer:sleep(3) end || {Id, Reason} <- Deaths],
    sys:resume(get(sup)),
    null;
step({wait, Time}, _, _) ->
    timer:sleep(Time),
    null;
step({add, Spec}, Book, #{strategy := simple_one_for_one}) ->
    #{id := Id, fails := Fails} = Spec,
    ask(Book, {fails, Id, Fails}),
    reply(supervisor:start_child(get(sup), [Id]));
step({add, Spec}, Book, _) ->
    #{id := Id, fails := Fails} = Spec,
    case lists:keymember(Id, 1, which()) of
        true -> ok;
        false -> ask(Book, {fails, Id, Fails})
    end,
    reply(supervisor:start_child(get(sup), spec(Spec, Book)));
step({terminate, Id}, Book, #{strategy := simple_one_for_one}) ->
    case ask(Book, {pid, Id}) of
        undefined -> <<"not_found">>;
        Pid -> reply(supervisor:terminate_child(get(sup), Pid))
    end;
step({terminate, Id}, _, _) -> reply(supervisor:terminate_child(get(sup), Id));
step({restart, Id}, _, _) -> reply(supervisor:restart_child(get(sup), Id));
step({delete, Id}, _, _) -> reply(supervisor:delete_child(get(sup), Id));
step(stop, _, _) ->
    Sup = get(sup),
    Monitor = monitor(process, Sup),
    exit(Sup, shutdown),
    receive {'DOWN', Monitor, process, Sup, _} -> null end.

die(Book, Id, Reason) ->
    case ask(Book, {pid, Id}) of
        undefined -> ok;
        Pid ->
            Monitor = monitor(process, Pid),
            Pid ! {die, Reason},
            receive {'DOWN', Monitor, process, Pid, _} -> ok end
    end.

reply(ok) -> <<"ok">>;
reply({ok, Pid}) when is_pid(Pid) -> <<"started">>;
reply({error, {already_started, _}}) -> <<"already_started">>;
reply({error, simple_one_for_one}) -> <<"dynamic">>;
reply({error, no_start}) -> <<"failed">>;
reply({error, Word}) when is_atom(Word) -> atom_to_binary(Word);
reply({error, _}) -> <<"failed">>.

%% The supervisor and its children.

init({#{strategy := Strategy, intensity := Intensity, period := Period, auto := Auto, children := Children}, Book}) ->
    Specs = [spec(Child, Book) || Child <- Children],
    {ok, {#{strategy => Strategy, intensity => Intensity, period => Period, auto_shutdown => Auto}, Specs}}.

spec(#{id := Id, restart := Restart, shutdown := Shutdown, significant := Significant, type := Type} = Child, Book) ->
    Arguments = case Child of
                    #{template := true} -> [Book, maps:get(stop, Child)];
                    _ -> [Book, maps:get(stop, Child), Id]
                end,
    #{id => Id, start => {?MODULE, start_child, Arguments}, restart => Restart, shutdown => Shutdown,
      significant => Significant, type => Type}.

start_child(Book, Stop, Id) ->
    case ask(Book, {start, Id}) of
        fail -> {error, no_start};
        ok ->
            Parent = self(),
            Pid = spawn_link(fun() -> process_flag(trap_exit, true), Parent ! {self(), up}, child(Book, Stop, Id, Parent) end),
            receive {Pid, up} -> ok end,
            ask(Book, {up, Id, Pid}),
            {ok, Pid}
    end.

child(Book, Stop, Id, Parent) ->
    receive
        {die, normal} -> exit(normal);
        {die, shutdown} -> exit(shutdown);
        {die, failed} -> exit(broken);
        {'EXIT', Parent, Reason} ->
            ask(Book, {asked, Id}),
            case Stop of
                obey -> exit(Reason);
                ignore -> child(Book, Stop, Id, Parent)
            end
    end.

%% The book: what happened, which process is which, and how many starts of each are still to fail.

book(Log, Pids, Fails) ->
    receive
        {From, Ref, log} ->
            From ! {Ref, lists:reverse(Log)},
            book([], Pids, Fails);
        {From, Ref, count} ->
            From ! {Ref, length(Log)},
            book(Log, Pids, Fails);
        {From, Ref, {fails, Id, Which}} ->
            From ! {Ref, ok},
            book(Log, Pids, Fails#{Id => Which});
        {From, Ref, {start, Id}} ->
            [Fail | Rest] = case maps:get(Id, Fails, []) of [] -> [false]; Some -> Some end,
            case Fail of
                true -> From ! {Ref, fail}, book([<<"!", Id/binary>> | Log], Pids, Fails#{Id => Rest});
                false -> From ! {Ref, ok}, book([<<"+", Id/binary>> | Log], Pids, Fails#{Id => Rest})
            end;
        {From, Ref, {up, Id, Pid}} ->
            monitor(process, Pid),
            From ! {Ref, ok},
            book(Log, Pids#{Pid => Id}, Fails);
        {From, Ref, {asked, Id}} ->
            From ! {Ref, ok},
            book([<<"-", Id/binary>> | Log], Pids, Fails);
        {From, Ref, {pid, Id}} ->
            From ! {Ref, hd([Pid || {Pid, Known} <- maps:to_list(Pids), Known =:= Id] ++ [undefined])},
            book(Log, Pids, Fails);
        {From, Ref, {name, Pid}} ->
            From ! {Ref, maps:get(Pid, Pids, <<"?">>)},
            book(Log, Pids, Fails);
        {'DOWN', _, process, Pid, killed} ->
            #{Pid := Id} = Pids,
            book([<<"x", Id/binary>> | Log], maps:remove(Pid, Pids), Fails);
        {'DOWN', _, process, Pid, _} ->
            book(Log, maps:remove(Pid, Pids), Fails)
    end.

ask(Book, What) ->
    Ref = make_ref(),
    Book ! {self(), Ref, What},
    receive {Ref, Answer} -> Answer end.

%% Lists, binaries, integers and null as JSON.

json(List) when is_list(List) -> [$[, lists:join($,, [json(One) || One <- List]), $]];
json(Text) when is_binary(Text) -> [$", Text, $"];
json(null) -> "null";
json(Number) when is_integer(Number) -> integer_to_list(Number).
