%% What tests/bench/bench_supervision.py does, with the supervisor of Erlang/OTP.
%%
%%     erl -noshell -pa DIR -run supervision_peer main FIGURE COUNT
%%
%% Prints one number.
-module(supervision_peer).
-export([main/1, init/1, start_child/1, start_idle/1]).
-behaviour(supervisor).

main([Figure, Count]) ->
    process_flag(trap_exit, true),
    logger:set_primary_config(level, none),
    io:format("~w~n", [run(Figure, list_to_integer(Count))]),
    halt(0).

%% The median of the microseconds from the failure of a child to the first word of the next.
run("restart_latency", Count) ->
    {ok, _} = supervisor:start_link(?MODULE, {fixed, self()}),
    Times = restarts(Count, receive {up, Pid} -> Pid end, []),
    lists:nth(Count div 2, lists:sort(Times));
run("dynamic_start", Count) ->
    {Micro, _} = timer:tc(fun() -> grow(Count) end),
    Micro / 1.0e6;
run("dynamic_bytes", Count) ->
    grow(Count div 100),
    Before = resident(),
    grow(Count),
    (resident() - Before) / Count.

restarts(0, _, Times) -> Times;
restarts(Count, Child, Times) ->
    Began = erlang:monotonic_time(nanosecond),
    Child ! fail,
    receive {up, Next} -> restarts(Count - 1, Next, [(erlang:monotonic_time(nanosecond) - Began) / 1000 | Times]) end.

grow(Count) ->
    {ok, Sup} = supervisor:start_link(?MODULE, dynamic),
    [{ok, _} = supervisor:start_child(Sup, [Number]) || Number <- lists:seq(1, Count)].

init({fixed, To}) ->
    {ok, {#{strategy => one_for_one, intensity => 1000000, period => 1}, [#{id => child, start => {?MODULE, start_child, [To]}}]}};
init(dynamic) ->
    {ok, {#{strategy => simple_one_for_one}, [#{id => child, start => {?MODULE, start_idle, []}}]}}.

start_child(To) ->
    {ok, spawn_link(fun() -> To ! {up, self()}, receive fail -> exit(failed) end end)}.

start_idle(_Number) ->
    {ok, spawn_link(fun() -> receive stop -> ok end end)}.

resident() ->
    {ok, Text} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = binary:split(Text, <<" ">>, [global]),
    binary_to_integer(Pages) * 4096.
