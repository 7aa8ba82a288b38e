%% What tests/bench/bench_remote.py, bench_losing.py and bench_moving.py do, in Erlang between two nodes: the second peer,
%% where erl is installed.
%%
%%     erl -noshell -name a@127.0.0.1 -pa DIR -run remote_peer main FIGURE COUNT OTHER_NODE
%%
%% Prints one number; where the other node is to be killed, first "ready" and then when its end was known, in
%% microseconds of Unix time. Messages are {Topic, From, Map}, as in local_peer.erl.
-module(remote_peer).
-export([main/1, stay/0, echo/0, sink/3, idle/0, keeper/1]).

-define(WINDOW, 20000).

main([Figure, Count, Other]) ->
    Node = list_to_atom(Other),
    pong = net_adm:ping(Node),
    global:sync(),
    io:format("~w~n", [run(Figure, list_to_integer(Count), Node)]),
    halt(0).

%% The other node: there until its input ends.
stay() ->
    io:format("ready~n"),
    io:get_line(""),
    halt(0).

run("remote_one_way", Count, Node) ->
    one_way(Node, Count div 10),
    Count / seconds(fun() -> one_way(Node, Count) end);
run("remote_request", Count, Node) ->
    requests(Node, 1, Count div 10),
    Count / seconds(fun() -> requests(Node, 1, Count) end);
run("remote_request_64", Count, Node) ->
    requests(Node, 64, 10),
    Count / seconds(fun() -> requests(Node, 64, Count div 64) end);
run("name_register", Count, _) ->
    Holders = [spawn_link(?MODULE, idle, []) || _ <- lists:seq(1, Count)], % who has two names is refused one
    Count / seconds(fun() -> [yes = global:register_name({name, Holder}, Holder) || Holder <- Holders] end);
run("name_lookup", Count, _) ->
    yes = global:register_name(somebody, self()),
    Count / seconds(fun() -> look_up(Count) end);
run("hand_over", Count, Node) ->
    Keepers = [spawn(?MODULE, keeper, [state(Number)]) || Number <- lists:seq(1, Count)],
    seconds(fun() ->
        [Keeper ! {hand_over, self(), Node} || Keeper <- Keepers],
        [receive {there, _} -> ok end || _ <- Keepers]
    end);
run("hand_over_one", Count, Node) ->
    Times = [element(1, timer:tc(fun() -> hand_over_one(Node) end)) || _ <- lists:seq(1, Count)],
    lists:nth((Count + 1) div 2, lists:sort(Times)) / 1000;
run("monitor_told", Count, Node) ->
    References = [erlang:monitor(process, spawn(Node, ?MODULE, idle, [])) || _ <- lists:seq(1, Count)],
    pong = net_adm:ping(Node),
    io:format("ready~n"),
    [receive {'DOWN', Reference, _, _, noconnection} -> ok end || Reference <- References],
    os:system_time(microsecond).

seconds(Work) ->
    {Micro, _} = timer:tc(Work),
    Micro / 1.0e6.

data() ->
    binary:copy(<<"x">>, 100).

one_way(Node, Count) ->
    Sink = spawn_link(Node, ?MODULE, sink, [1, Count, self()]),
    source(Sink, 1, 0, Count, data()),
    unlink(Sink).

source(_Sink, Id, Count, Count, _Data) when Id > Count ->
    ok;
source(Sink, Id, Taken, Count, Data) when Id > Count; Id - Taken > ?WINDOW ->
    receive
        {<<"taken">>, Sink, Number} -> source(Sink, Id, Number, Count, Data)
    end;
source(Sink, Id, Taken, Count, Data) ->
    Sink ! {<<"m">>, self(), #{<<"id">> => Id, <<"data">> => Data}},
    source(Sink, Id + 1, Taken, Count, Data).

sink(Id, Count, _Source) when Id > Count ->
    ok;
sink(Id, Count, Source) ->
    receive
        {<<"m">>, Source, #{<<"id">> := Id}} -> ok
    end,
    case Id rem 5000 == 0 orelse Id == Count of
        true -> Source ! {<<"taken">>, self(), Id};
        false -> ok
    end,
    sink(Id + 1, Count, Source).

requests(Node, Parallel, Rounds) ->
    Echo = spawn_link(Node, ?MODULE, echo, []),
    Data = data(),
    Askers = [spawn_monitor(fun() -> ask(Echo, 1, Rounds, Data) end) || _ <- lists:seq(1, Parallel)],
    [receive {'DOWN', Reference, _, _, normal} -> ok end || {_, Reference} <- Askers],
    unlink(Echo),
    exit(Echo, kill).

ask(_Echo, Id, Rounds, _Data) when Id > Rounds ->
    ok;
ask(Echo, Id, Rounds, Data) ->
    Echo ! {<<"ping">>, self(), #{<<"id">> => Id, <<"data">> => Data}},
    receive
        {<<"pong">>, _From, #{<<"id">> := Id}} -> ask(Echo, Id + 1, Rounds, Data)
    end.

echo() ->
    receive
        {_Topic, From, Value} ->
            From ! {<<"pong">>, self(), Value},
            echo()
    end.

look_up(0) ->
    ok;
look_up(Count) ->
    true = is_pid(global:whereis_name(somebody)),
    look_up(Count - 1).

%% Moving by hand: a successor with the same state on the other node, under another PID.
hand_over_one(Node) ->
    spawn(?MODULE, keeper, [state(1)]) ! {hand_over, self(), Node},
    receive {there, Successor} -> exit(Successor, kill) end.

keeper(State) ->
    receive
        {hand_over, Asker, Node} -> Asker ! {there, spawn(Node, ?MODULE, keeper, [State])}
    end.

state(Number) ->
    Lines = [#{article => integer_to_binary(I), price => I * 1.5, amount => I} || I <- lists:seq(1, 20)],
    #{number => Number, lines => Lines}.

idle() ->
    receive
        _ -> ok
    end.
