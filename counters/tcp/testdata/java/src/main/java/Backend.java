import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URL;
import java.util.List;
import java.util.stream.Stream;

/** What the app asks when it may answer. */
record Backend(String address) {
  /** Waits until the backend answers. */
  void await(String id) {
    try (var in = new URL("http://" + address + "/hold?id=" + id).openStream()) {
      in.readAllBytes();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The ids in a query such as id=1&id=2. */
  static List<String> ids(String query) {
    return query == null ? List.of() : Stream.of(query.split("&")).map(part -> part.replace("id=", "")).toList();
  }
}
